"""What enrolment finds about the administrator: a superuser, or one that is asked what it may do.

Only what no tenant could be made without is a problem; whatever else is lacking is advice, with the
statement that mends it and with what cannot be done until then.
"""

from collections.abc import Iterator

from control_plane.domain.administrators import GUARDED_SETTINGS, LEAST_MAJOR, STREAMING_ROLE
from control_plane.domain.preflight_facts import Check, ServerFacts, quoted

_SCRIPT = "tenantry servers administrator-sql prints all that a superuser has to run"


def administrator_checks(facts: ServerFacts) -> list[Check]:
    """The administrator's own checks, in one order for every server."""
    return [
        _administrator(facts),
        _root_equivalent(facts),
        *(check(facts) for check in (_inherited, _public, _moves, _policies)),
        *(check(facts) for check in (_settings, _restore_points, _sessions)),
    ]


def _administrator(facts: ServerFacts) -> Check:
    name, may = "administrator", facts.may
    wanted = f"a superuser, or from Postgres {LEAST_MAJOR} on a role with CREATEDB and CREATEROLE"
    if may.superuser:
        return Check(name, "ok", f"{facts.user} is a superuser", wanted)
    if facts.major < LEAST_MAJOR:
        found = f"{facts.user} is no superuser on Postgres {facts.major}"
        remedy = (
            f"as a superuser: ALTER ROLE {quoted(facts.user)} SUPERUSER; or enrol as another user, "
            f"or a server of Postgres {LEAST_MAJOR} or newer"
        )
        return Check(name, "problem", found, wanted, remedy)
    held = {"CREATEDB": may.createdb, "CREATEROLE": may.createrole}
    if missing := [attribute for attribute, has in held.items() if not has]:
        remedy = (
            f"as a superuser: ALTER ROLE {quoted(facts.user)} {' '.join(missing)}; or all at once: "
            f"{_SCRIPT}"
        )
        return Check(name, "problem", f"{facts.user} lacks {', '.join(missing)}", wanted, remedy)
    found = f"{facts.user} is no superuser: passwords of logins are set, and not compared"
    return Check(name, "ok", found, wanted)


def _root_equivalent(facts: ServerFacts) -> Check:
    """S-07: whether this password is worth a shell on the server's machine."""
    name, wanted = "provisioner_root_equivalent", "a role that cannot run programs on the server"
    if facts.may.superuser:
        why = "a superuser may run programs as the server's system user"
    elif facts.may.createrole and facts.major < LEAST_MAJOR:
        # CREATEROLE could grant itself pg_execute_server_program.
        why = f"before Postgres {LEAST_MAJOR}, CREATEROLE may give itself pg_execute_server_program"
    else:
        return Check(name, "ok", f"{facts.user} may not run programs", wanted)
    remedy = "keep nothing of another trust domain on this machine, and this password only here"
    return Check(name, "advice", why, wanted, remedy)


def _inherited(facts: ServerFacts) -> Check:
    """What an administrator before this one made, and this one may not touch."""
    name, wanted = "administrator_inherits", "to go on with whatever was made before"
    if facts.foreign_roles:
        found = f"{facts.foreign_roles} roles of tenants and templates are another administrator's"
        remedy = f"give them to {facts.user}: {_SCRIPT}"
        return Check(name, "problem", found, wanted, remedy)
    return Check(name, "ok", "nothing is another administrator's", wanted)


def _public(facts: ServerFacts) -> Check:
    """S-01: where a login of a tenant may go beside its own database."""
    name, wanted = "public_databases", "no database that every login may connect to"
    if facts.public_databases:
        named = ", ".join(facts.public_databases)
        listed = ", ".join(quoted(database) for database in facts.public_databases)
        remedy = f"as their owner: REVOKE ALL ON DATABASE {listed} FROM PUBLIC"
        if "postgres" in facts.public_databases:
            remedy += f"; GRANT CONNECT, TEMPORARY ON DATABASE postgres TO {quoted(facts.user)}"
        return Check(name, "advice", f"every login may connect to {named}", wanted, remedy)
    return Check(name, "ok", "none but what enrolment closes", wanted)


def _moves(facts: ServerFacts) -> Check:
    name, wanted = "administrator_moves", "what it takes to move tenants here and away"
    lacking = facts.may.lacking_for_moves()
    if not lacking:
        return Check(name, "ok", "everything that a move takes", wanted)
    found = f"tenants can only be moved while they are closed; {facts.user} lacks "
    remedy = f"as a superuser: {'; '.join(_move_remedies(facts))}"
    return Check(name, "advice", found + ", ".join(lacking), wanted, remedy)


def _move_remedies(facts: ServerFacts) -> Iterator[str]:
    user = quoted(facts.user)
    if not facts.may.streams:
        lent = f" (Amazon RDS: GRANT {STREAMING_ROLE} TO {user} WITH ADMIN OPTION)"
        yield f"ALTER ROLE {user} REPLICATION{lent}"
    if not facts.may.subscriptions:
        yield f"GRANT pg_create_subscription TO {user}"
    if not facts.may.origins:
        yield (
            "in the database postgres: GRANT EXECUTE ON FUNCTION "
            f"pg_replication_origin_advance(text, pg_lsn) TO {user}"
        )


def _policies(facts: ServerFacts) -> Check:
    name, wanted = "administrator_row_security", "backups of tables with row security"
    if facts.may.bypassrls:
        return Check(name, "ok", "backups read past row security", wanted)
    found = f"{facts.user} lacks BYPASSRLS: a tenant with row security cannot be backed up or moved"
    remedy = f"as a superuser: ALTER ROLE {quoted(facts.user)} BYPASSRLS"
    return Check(name, "advice", found, wanted, remedy)


def _settings(facts: ServerFacts) -> Check:
    name, wanted = "administrator_settings", f"to set {', '.join(GUARDED_SETTINGS)} for its roles"
    lacking = sorted(set(GUARDED_SETTINGS) - facts.may.settings)
    if not lacking:
        return Check(name, "ok", "it may", wanted)
    listed = ", ".join(lacking)
    remedy = f"as a superuser: GRANT SET ON PARAMETER {listed} TO {quoted(facts.user)}"
    if "temp_file_limit" in lacking:
        remedy += "; or set temp_file_limit for the whole server"
    return Check(name, "advice", f"not set, so not enforced: {listed}", wanted, remedy)


def _restore_points(facts: ServerFacts) -> Check:
    name, wanted = "administrator_restore_points", "a named point in the WAL before each migration"
    if facts.may.restore_points:
        return Check(name, "ok", "it may name them", wanted)
    remedy = (
        "as a superuser, in the database postgres: GRANT EXECUTE ON FUNCTION "
        f"pg_create_restore_point(text) TO {quoted(facts.user)}"
    )
    return Check(name, "advice", "a position is recorded, without a name", wanted, remedy)


def _sessions(facts: ServerFacts) -> Check:
    name, wanted = "administrator_sessions", "to see what sessions do, and to end them"
    held = {"pg_monitor": facts.may.statistics, "pg_signal_backend": facts.may.signals}
    lacking = ", ".join(role for role, has in held.items() if not has)
    if not lacking:
        return Check(name, "ok", "it may", wanted)
    remedy = f"as a superuser: GRANT {lacking} TO {quoted(facts.user)}"
    return Check(name, "advice", f"{facts.user} is no member of {lacking}", wanted, remedy)
