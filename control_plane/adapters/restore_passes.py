"""In which order the entries of an archive are restored, and by whom.

First what holds data, then the data, then indexes, constraints and privileges. Privileges come
last for good reason: an owner may have taken its own away. A few of them only the one who
administers the server can give again; those are not run as they were written, but taken apart and
put together anew, so that nothing but a GRANT or REVOKE for the tenant's own roles can come of
them.
"""

from collections.abc import Collection, Iterator

import msgspec
import postgast
from postgast import pg_query_pb2 as pg

from control_plane.adapters.archive_toc import Contents, Entry, Section
from control_plane.adapters.revision_lint.syntax import Message
from control_plane.adapters.scratch_database import heirs
from control_plane.domain.errors import ServerUnsuitable
from control_plane.domain.names import RoleSet

_PUBLIC = "public"
# It belongs to the database's owner, and is in an archive only if somebody else owned it.
_PUBLIC_ACLS = frozenset({"SCHEMA public", 'SCHEMA "public"'})


class Passes(msgspec.Struct, frozen=True):
    """The numbers of the entries of the three passes, and what is done without ``pg_restore``.

    ``schemas`` exist already, and get the owners they have here. ``statements`` are for an
    administrator.
    """

    before: list[int]
    data: list[int]
    after: list[int]
    schemas: dict[str, str]
    statements: list[str]


def passes(contents: Contents, existing: Collection[str], roles: RoleSet) -> Passes:
    """What is restored when; ``existing`` are the schemas that the database has already.

    Raises:
        ServerUnsuitable: privileges cannot be given again; the message says of what.
    """
    owners = set(heirs(roles).values())
    known = {entry.number for entry in contents.entries}
    found = Passes([], [], [], {}, [])
    part = Section.PRE_DATA
    for entry in contents.entries:
        # Comments and such go with what they are about, which is before them.
        part = Section(entry.section) if entry.section != Section.NONE else part
        if _is_of_extension(entry):
            continue
        if entry.kind == "SCHEMA" and entry.name in existing and entry.name != _PUBLIC:
            if entry.owner in owners:
                found.schemas[entry.name] = entry.owner
            else:
                found.statements.append(f"ALTER SCHEMA {_quoted(entry.name)} OWNER TO CURRENT_USER")
        elif entry.kind == "ACL" and _is_beyond_loader(entry, known):
            found.statements.extend(_rewritten(entry, roles))
        else:
            _pass_of(entry, part, found).append(entry.number)
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_of_extension(entry: Entry) -> bool:
    """Extensions are there before; their comments come from their files."""
    about_one = entry.kind == "COMMENT" and entry.name.startswith("EXTENSION ")
    return entry.kind == "EXTENSION" or about_one


def _pass_of(entry: Entry, part: Section, found: Passes) -> list[int]:
    if entry.kind in {"ACL", "DEFAULT ACL"}:
        return found.after
    # They change their owner while roles may still create in every schema.
    if part is Section.PRE_DATA or entry.kind == "STATISTICS":
        return found.before
    return found.data if part is Section.DATA else found.after


def _is_beyond_loader(entry: Entry, known: Collection[int]) -> bool:
    """Whether its object is not in the archive, or somebody else than its owner gave privileges.

    The objects of extensions and of Postgres itself are not: they belong to an administrator.
    """
    foreign = not entry.needs & set(known) and entry.name not in _PUBLIC_ACLS
    return foreign or "SET SESSION AUTHORIZATION" in entry.definition


def _rewritten(entry: Entry, roles: RoleSet) -> Iterator[str]:
    try:
        tree = postgast.parse(entry.definition)
    except postgast.PgQueryError as error:
        raise ServerUnsuitable(f"the privileges on {entry.name} cannot be read") from error
    giver: str | None = None
    for statement in tree.stmts:
        node = postgast.unwrap_node(statement.stmt)
        if isinstance(node, pg.VariableSetStmt) and node.name == "session_authorization":
            giver = _giver(node)
        elif isinstance(node, pg.GrantStmt) and _named(node, giver) <= set(roles.every):
            text = postgast.deparse(pg.ParseResult(version=tree.version, stmts=[statement]))
            yield f'SET ROLE "{giver}"; {text}; RESET ROLE' if giver else text
        else:
            raise ServerUnsuitable(
                f"the privileges on {entry.name} cannot be given again: they name roles that are "
                "not the tenant's"
            )


def _giver(node: Message) -> str | None:
    return next((postgast.unwrap_node(value).sval.sval for value in node.args), None)


def _named(node: Message, giver: str | None) -> set[str]:
    """Every role that a GRANT or REVOKE is about; PUBLIC is none."""
    found = {giver} if giver else set()
    for grantee in map(postgast.unwrap_node, node.grantees):
        if grantee.roletype != pg.ROLESPEC_PUBLIC:
            found.add(grantee.rolename)
    return found
