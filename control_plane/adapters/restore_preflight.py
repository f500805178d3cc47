"""Every reason why a backup cannot be restored on a server, before anything is made there.

That a server has another version of a collation is none: a restore makes every index anew. Nor is
room on its disk looked at: Postgres does not tell how much there is.
"""

import re
from collections.abc import Iterator

from control_plane.adapters.archive_toc import Contents, Entry
from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.scratch_database import heirs
from control_plane.domain.backups import Locale, Manifest
from control_plane.domain.errors import UnexpectedDatabaseError
from control_plane.domain.names import RoleSet

_MAJOR = 10_000

_LACKING = """
SELECT name FROM unnest($1::text[]) AS name
 WHERE name NOT IN (SELECT a.name FROM pg_available_extensions a) ORDER BY 1
"""
_ENCODING = """
SELECT pg_char_to_encoding($1) <> -1 AS known,
       pg_char_to_encoding($1) = encoding AS ours
  FROM pg_database WHERE datname = current_database()
"""
# A collation in the temporary schema says whether the server has a locale, and is rolled back.
_TRY_LOCALE = """
SELECT format('CREATE COLLATION pg_temp.tried (PROVIDER = %s, ', $1::text)
       || CASE $1 WHEN 'libc' THEN format('LC_COLLATE = %L, LC_CTYPE = %L)', $2::text, $3::text)
                  ELSE format('LOCALE = %L)', $4::text) END
"""
_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}

# What has an owner that the restore gives to it, or speaks for one.
_OWNED = frozenset(
    {
        "AGGREGATE", "BLOB", "BLOB METADATA", "COLLATION", "CONVERSION", "DEFAULT ACL", "DOMAIN",
        "FOREIGN TABLE", "FUNCTION", "MATERIALIZED VIEW", "OPERATOR", "PROCEDURE", "SCHEMA",
        "SEQUENCE", "SERVER", "STATISTICS", "TABLE", "TEXT SEARCH CONFIGURATION",
        "TEXT SEARCH DICTIONARY", "TYPE", "VIEW",
    }
)  # fmt: skip
# What Postgres lets only a superuser make.
_BEYOND_TENANTS = frozenset(
    {
        "ACCESS METHOD", "EVENT TRIGGER", "FOREIGN DATA WRAPPER", "OPERATOR CLASS",
        "OPERATOR FAMILY", "PROCEDURAL LANGUAGE", "SHELL TYPE", "SUBSCRIPTION",
        "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE", "TRANSFORM",
    }
)  # fmt: skip
# As pg_dump writes it, before the body of the function.
_LANGUAGE = re.compile(r'^    LANGUAGE "?(\w+)', re.MULTILINE)
_UNTRUSTED = frozenset({"c", "internal", "plperlu", "plpython3u", "pltclu"})


async def obstacles(admin: Connection, manifest: Manifest, version_num: int) -> list[str]:
    """What the server that ``admin`` is connected to, of this version, lacks for the backup."""
    found = []
    wanted, had = manifest.server_version // _MAJOR, version_num // _MAJOR
    if had < wanted:
        found.append(f"it has Postgres {had}, the backup is of Postgres {wanted}")
    with translated():
        lacking = await admin.fetch(_LACKING, [one.name for one in manifest.extensions])
        encoding = await admin.fetchrow(_ENCODING, manifest.locale.encoding)
    found.extend(f"extension {row['name']} is not installed on it" for row in lacking)
    if encoding is None or not encoding["known"]:
        found.append(f"it does not know the encoding {manifest.locale.encoding}")
    # A locale of the system belongs to an encoding, and is tried in ours.
    elif encoding["ours"] or manifest.locale.provider != "c":
        found.extend(await _locale_obstacles(admin, manifest.locale))
    return found


def archive_obstacles(contents: Contents, manifest: Manifest) -> list[str]:
    """What is in an archive and cannot be restored by a login without special rights."""
    owners = {*heirs(RoleSet(manifest.roles_key)).values(), "pg_database_owner", ""}
    # Those of extensions are made before, whosever they are.
    made = {extension.schema for extension in manifest.extensions}
    return [
        words
        for entry in contents.entries
        if not (entry.kind == "SCHEMA" and entry.name in made)
        for words in _entry_obstacles(entry, owners)
    ]


async def _locale_obstacles(admin: Connection, locale: Locale) -> list[str]:
    provider = _PROVIDERS[locale.provider]
    transaction = admin.transaction()
    try:
        with translated():
            statement = await admin.fetchval(
                _TRY_LOCALE, provider, locale.collate, locale.ctype, locale.icu_locale
            )
            await transaction.start()
            try:
                await admin.execute(statement)
            finally:
                await transaction.rollback()
    except UnexpectedDatabaseError as error:
        return [f"it cannot sort text as the backup's server: {error.message}"]
    return []


def _entry_obstacles(entry: Entry, owners: set[str]) -> Iterator[str]:
    if entry.kind in _OWNED and entry.owner not in owners:
        yield f"{entry.words} belongs to {entry.owner}, which is no role of the tenant"
    if entry.kind in _BEYOND_TENANTS or _is_of_superuser(entry):
        yield f"only a superuser can make {entry.words}"


def _is_of_superuser(entry: Entry) -> bool:
    if entry.kind in {"FUNCTION", "PROCEDURE"}:
        language = _LANGUAGE.search(entry.definition)
        return language is not None and language[1] in _UNTRUSTED
    return entry.kind == "CAST" and " WITHOUT FUNCTION" in entry.definition
