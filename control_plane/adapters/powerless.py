"""Reading a tenant's tables on an administrator's connection, with none of its rights.

An index, a policy or a view of the tenant's may call its functions while a statement is planned,
as whoever has it planned, and what runs so can undo ``SET ROLE`` (S-08). Inside a function that is
SECURITY DEFINER it cannot
(https://www.postgresql.org/docs/current/sql-createfunction.html, "Writing SECURITY DEFINER
Functions Safely"). The function is of a role of the tenant's own that may read what is asked for;
the transaction that makes it is rolled back, so that nothing it did stays or waits for a commit.
"""

from typing import TypeVar

import msgspec

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.sql_text import fill
from control_plane.domain.errors import SchemaMismatch

Found = TypeVar("Found")
_MAKE = """
CREATE FUNCTION cp_meta.powerless(statement text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $body$
DECLARE found jsonb;
BEGIN
    EXECUTE statement INTO found;
    RETURN found;
END
$body$;
GRANT USAGE, CREATE ON SCHEMA cp_meta TO {reader};
ALTER FUNCTION cp_meta.powerless(text) OWNER TO {reader};
"""


async def read_powerless(
    inside: Connection, reader: str, statement: str, wanted: type[Found]
) -> Found | None:
    """What a statement of one row and one ``jsonb`` column finds, with the rights of ``reader``.

    ``inside`` is an administrator in a database of ours, in no transaction; ``reader`` a role of
    the tenant's: its backup role reads every table, its auditor the audit log.

    Raises:
        SchemaMismatch: it is not of the type that is ``wanted``.
    """
    transaction = inside.transaction()
    with translated():
        await transaction.start()
        try:
            await inside.execute(fill(_MAKE, reader=reader))
            found = await inside.fetchval("SELECT cp_meta.powerless($1)::text", statement)
        finally:
            await transaction.rollback()
    if found is None:
        return None
    try:
        return msgspec.json.decode(found, type=wanted)
    except msgspec.ValidationError as error:
        raise SchemaMismatch(f"a table that was read is not what it should be: {error}") from error
