"""A cheap mark of a schema, compared inside the transaction of a migration before it commits.

The fingerprint compares more and costs about three times as much; a database whose mark is wrong
is refused at once, the rest is found by a survey.
"""

import re

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.sql_text import load

OTHER_SCHEMA = "tenantry: another schema"
_MARK = re.compile(r"[0-9a-f]{64}")
# A cast that fails is the only way to raise in plain SQL; a DO block would load PL/pgSQL first.
_PROOF = """;
SELECT CAST(CASE (%s) WHEN '%s' THEN '0' ELSE 'tenantry: another schema' END AS integer)
"""


async def read_mark(connection: Connection) -> str:
    """The mark of the database ``connection`` is in: 64 hex digits."""
    with translated():
        return str(await connection.fetchval(load("schema_mark")))


def proof(mark: str) -> str:
    """A statement whose error names ``OTHER_SCHEMA`` unless the schema has this mark.

    Raises:
        ValueError: it is no mark.
    """
    if _MARK.fullmatch(mark) is None:
        raise ValueError("a mark has 64 hex digits")
    return _PROOF % (load("schema_mark"), mark)
