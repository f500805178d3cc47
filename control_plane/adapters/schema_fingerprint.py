"""What the schema of a database is, and the fingerprint by which two schemas are compared.

A schema is a set of facts: lines of kind, name and text, which ``sql/schema_definition.sql`` reads
from the catalogs. The fingerprint is the SHA-256 of the sorted lines, made in the server; the
definition is the same facts in words. Sessions must be those of ``postgres_server.connect``.
"""

import hashlib
from collections.abc import Mapping
from itertools import groupby

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.schema_words import in_words
from control_plane.adapters.sql_text import load
from control_plane.domain import names
from control_plane.domain.schema_diff import Definition, SchemaReading

__all__ = [
    "TEMPLATE_ROLES",
    "Definition",
    "SchemaReading",
    "read_definition",
    "read_fingerprint",
    "role_names",
]

_LINE = "concat_ws('|', kind, name, text) COLLATE \"C\""
_HASH = f"""
SELECT encode(sha256(convert_to(
           string_agg(DISTINCT {_LINE}, chr(10) ORDER BY {_LINE}), 'UTF8')), 'hex')
  FROM line
"""  # noqa: S608 - a constant of this module
_FACTS = f"""
SELECT DISTINCT {_LINE} AS line, kind, name, text FROM line ORDER BY 1
"""  # noqa: S608 - a constant of this module

TEMPLATE_ROLES: Mapping[str, str] = {
    names.TEMPLATE_OWNER: "owner",
    names.TEMPLATE_APP: "app",
    names.TEMPLATE_AUDITOR: "auditor",
    names.TEMPLATE_READER: "reader",
}


def role_names(roles: names.RoleSet) -> dict[str, str]:
    """The roles of a tenant, each with the word that stands for it in every tenant's schema."""
    return {
        roles.owner: "owner",
        roles.app: "app",
        roles.login_a: "login_a",
        roles.login_b: "login_b",
        roles.migrator: "migrator",
        roles.backup: "backup",
        roles.auditor: "auditor",
        roles.reader: "reader",
    }


async def read_fingerprint(connection: Connection, roles: Mapping[str, str]) -> str:
    """The fingerprint (64 hex digits) of the schema of the database ``connection`` is in.

    ``roles`` maps roles to words: ``role_names`` of a tenant, or ``TEMPLATE_ROLES``. What the role
    with the word ``backup`` may do is left out.
    """
    with translated():
        found = await connection.fetchval(
            load("schema_definition") + _HASH, list(roles), list(roles.values())
        )
    return str(found)


async def read_definition(connection: Connection, roles: Mapping[str, str]) -> SchemaReading:
    """The fingerprint as ``read_fingerprint`` gives it, with the definition behind it."""
    with translated():
        rows = await connection.fetch(
            load("schema_definition") + _FACTS, list(roles), list(roles.values())
        )
    lines = "\n".join(row["line"] for row in rows)
    definition: Definition = {}
    for (kind, name), facts in groupby(rows, key=lambda row: (row["kind"], row["name"])):
        definition.setdefault(kind, {})[name] = in_words(kind, name, [row["text"] for row in facts])
    return SchemaReading(hashlib.sha256(lines.encode()).hexdigest(), definition)
