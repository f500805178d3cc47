"""The receiving side of logical replication: its subscription, and the role that applies changes.

Named and dropped as ``replication.py`` has it. Changes are applied in the name of a role that may
write the tenant's tables and nothing else, so that a trigger of the tenant never runs as an
administrator (S-08).
"""

import msgspec
from psycopg.conninfo import make_conninfo

from control_plane.adapters.administrator import abilities, attributes, reach
from control_plane.adapters.postgres_server import Connection, ServerAddress, translated
from control_plane.adapters.sql_text import fill
from control_plane.config import Secret
from control_plane.domain.moves import Link
from control_plane.domain.names import RoleSet

# LOGIN lets the server's own worker be this role; without a password nobody else can.
_APPLIER = """
{reach}
DO $body$ BEGIN
    IF to_regrole('{applier}') IS NULL THEN CREATE ROLE {applier}; END IF;
END $body$;
ALTER ROLE {applier} LOGIN PASSWORD NULL {past_policies};
GRANT {owner}, {auditor} TO {applier};
GRANT CONNECT ON DATABASE {database} TO {applier};
GRANT USAGE ON SCHEMA cp_meta TO {applier};
GRANT SELECT, INSERT, UPDATE, DELETE ON cp_meta.move_marker TO {applier};
"""
# Not disable_on_error: a sender that is started again is an error, too.
_SUBSCRIBE = """
CREATE SUBSCRIPTION {name} CONNECTION %s PUBLICATION {name}
    WITH (create_slot = false, slot_name = {name}, copy_data = false, enabled = false{more});
"""
_HAND_OVER = "ALTER SUBSCRIPTION {name} OWNER TO {applier};"
# Before Postgres 16 only a superuser may make one or be given one.
_SUPERUSER, _NO_SUPERUSER = "ALTER ROLE {applier} SUPERUSER;", "ALTER ROLE {applier} NOSUPERUSER;"
_REDIAL = "ALTER SUBSCRIPTION {name} CONNECTION %s"
_ENABLE = "ALTER SUBSCRIPTION {name} ENABLE"
_DISABLE = "ALTER SUBSCRIPTION {name} DISABLE"
_SUBSCRIBED = """
SELECT s.oid, s.subenabled FROM pg_subscription s
  JOIN pg_database d ON d.oid = s.subdbid
 WHERE s.subname = $1 AND d.datname = current_database()
"""
_FORGET = """
ALTER SUBSCRIPTION {name} DISABLE;
ALTER SUBSCRIPTION {name} SET (slot_name = NONE);
DROP SUBSCRIPTION {name};
"""
_DROP_APPLIER = """
DO $body$ BEGIN
    IF to_regrole('{applier}') IS NOT NULL THEN
        DROP OWNED BY {applier};
        DROP ROLE {applier};
    END IF;
END $body$;
"""
_16 = 160_000
# As the owner of a table, whom changes would be applied as, they are subject to FORCE ROW SECURITY.
_SINCE_16 = ", origin = none, run_as_owner = true"


class Subscription(msgspec.Struct, frozen=True):
    """What a subscription reads: where the sender is, as whom, and in which database."""

    address: ServerAddress
    database: str
    password: Secret


async def subscribe(
    inside: Connection, link: Link, roles: RoleSet, reads: Subscription, version_num: int
) -> None:
    """The subscription exists, switched off; one that is there is made anew.

    Where the server can, it refuses changes that came from elsewhere: they would go in circles.
    """
    await unsubscribe(inside, link)
    may = await abilities(inside)
    if version_num >= _16:
        making = _SUBSCRIBE.replace("{more}", _SINCE_16) + _HAND_OVER
    else:
        making = _SUPERUSER + _SUBSCRIBE.replace("{more}", "") + _HAND_OVER + _NO_SUPERUSER
    with translated():
        script = fill(
            _APPLIER + making,
            applier=link.applier,
            owner=roles.owner,
            auditor=roles.auditor,
            name=link.name,
            database=str(await inside.fetchval("SELECT current_database()::text")),
            reach=reach(may),
            past_policies=attributes(may, past_policies=True),
        )
        literal = await inside.fetchval("SELECT quote_literal($1::text)", _conninfo(link, reads))
        async with inside.transaction():
            await inside.execute(script % literal)


async def begin_at(admin: Connection, link: Link, lsn: str) -> None:
    """Nothing that was committed on the sender before this position will be asked for.

    ``admin`` is in the receiving server's ``postgres``, where the right to say so is granted.
    """
    with translated():
        oid = await admin.fetchval("SELECT oid FROM pg_subscription WHERE subname = $1", link.name)
        await admin.execute(
            "SELECT pg_replication_origin_advance('pg_' || $1::text, $2::text::pg_lsn)",
            str(oid),
            lsn,
        )


async def enable(inside: Connection, link: Link) -> None:
    """Changes are streamed and applied from now on."""
    with translated():
        await inside.execute(fill(_ENABLE, name=link.name))


async def redial(inside: Connection, link: Link, reads: Subscription) -> None:
    """The subscription, which is there, reaches its sender where and as whom ``reads`` says.

    It goes on where it was: its position is kept.
    """
    with translated():
        literal = await inside.fetchval("SELECT quote_literal($1::text)", _conninfo(link, reads))
        await inside.execute(fill(_REDIAL, name=link.name) % literal)


async def rest(inside: Connection, link: Link) -> None:
    """Nothing that is committed on the sender from now on is applied, until ``go_on``."""
    with translated():
        await inside.execute(fill(_DISABLE, name=link.name))


async def go_on(inside: Connection, link: Link) -> None:
    """A subscription that rests is enabled; one that is not there is not made."""
    with translated():
        row = await inside.fetchrow(_SUBSCRIBED, link.name)
    if row is not None and not row["subenabled"]:
        await enable(inside, link)


async def unsubscribe(inside: Connection, link: Link) -> None:
    """Nothing is applied any more, and what applied it is gone."""
    with translated():
        if await inside.fetchrow(_SUBSCRIBED, link.name) is not None:
            await inside.execute(fill(_FORGET, name=link.name))
        await inside.execute(fill(_DROP_APPLIER, applier=link.applier))


async def is_enabled(inside: Connection, link: Link) -> bool:
    """Whether the subscription is there and switched on; one that never was may be made anew."""
    with translated():
        row = await inside.fetchrow(_SUBSCRIBED, link.name)
    return row is not None and bool(row["subenabled"])


def _conninfo(link: Link, reads: Subscription) -> str:
    """Channel binding proves the server, wherever the connection is encrypted."""
    address = reads.address
    encrypted = address.tls != "disable"
    return make_conninfo(
        host=address.host,
        hostaddr=address.hostaddr or "",
        port=address.port,
        dbname=reads.database,
        user=link.sender,
        password=reads.password.reveal(),
        application_name=link.name,
        sslmode="require" if encrypted else "disable",
        channel_binding="require" if encrypted else "disable",
        gssencmode="disable",
        keepalives_idle=30,
        keepalives_interval=10,
        keepalives_count=3,
    )
