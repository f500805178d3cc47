"""What an administrator may do on a server. A superuser may do everything; others are asked.

Pure: how it is asked is in ``adapters/administrator.py``, what is advised in
``domain/preflight_administrator.py``.
"""

import msgspec

# What only a superuser may set, unless it was granted (Postgres 15 and newer).
GUARDED_SETTINGS = ("lc_messages", "lo_compat_privileges", "temp_file_limit")
# Amazon RDS gives nobody the attribute REPLICATION; who has this role may stream there.
STREAMING_ROLE = "rds_replication"
# Before Postgres 16 a role that may make roles may make itself anything: nothing is gained.
LEAST_MAJOR = 16


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What the login of a session may do.

    ``replication`` and ``bypassrls`` are attributes, which it may then give to others;
    ``lends_streaming``: it has ``rds_replication`` and may grant it. ``settings`` are those of
    ``GUARDED_SETTINGS`` that it may set. ``subscriptions``, ``origins`` and ``restore_points``:
    it may make, advance and name them. ``statistics``: it sees those of others, ``signals``: it
    may end sessions of others.
    """

    superuser: bool
    createdb: bool
    createrole: bool
    replication: bool
    lends_streaming: bool
    bypassrls: bool
    settings: frozenset[str]
    subscriptions: bool
    origins: bool
    restore_points: bool
    statistics: bool
    signals: bool

    @property
    def streams(self) -> bool:
        """Whether it may stream changes, and let others."""
        return self.replication or self.lends_streaming

    def lacking_for_moves(self) -> list[str]:
        """What moves with little pause need and it has not, as an administrator knows it."""
        wanted = {
            f"REPLICATION (or {STREAMING_ROLE})": self.streams,
            "pg_create_subscription": self.subscriptions,
            "pg_replication_origin_advance()": self.origins,
        }
        return [name for name, held in wanted.items() if not held]


EVERYTHING = Abilities(
    superuser=True,
    createdb=True,
    createrole=True,
    replication=True,
    lends_streaming=False,
    bypassrls=True,
    settings=frozenset(GUARDED_SETTINGS),
    subscriptions=True,
    origins=True,
    restore_points=True,
    statistics=True,
    signals=True,
)
