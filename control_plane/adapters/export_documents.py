"""The words in an export: what is in it and how to use it, and every table in Markdown."""

from collections.abc import Sequence

from control_plane.adapters.export_tables import Column, Table

README = """\
This is a complete copy of the database of {name} ({slug}), as it was at {at}.

  data/SCHEMA/TABLE.csv   every table: a line with the names of its columns, then its rows
  schema.md               every table in words
  schema.sql              the definition of everything, as SQL
  database.dump           everything again, large objects included, in the format of pg_dump
  manifest.json           every file above with its length and SHA-256, every table with its rows
  manifest.sig            the signature of manifest.json, Ed25519
  signing-key.pem         the key it was signed with; compare it with the one you were told

Make sure that it is whole and ours:

  openssl pkeyutl -verify -pubin -inkey signing-key.pem -rawin \\
      -in manifest.json -sigfile manifest.sig
  the SHA-256 of the key's 32 bytes is {fingerprint}

Make a database of it, with Postgres {major} or newer:

  createdb mine
  pg_restore --no-owner --no-privileges --exit-on-error -d mine database.dump

Load one table by itself; \\N does not occur, an empty field is NULL and "" an empty text:

  \\copy SCHEMA.TABLE (COLUMNS OF THE FIRST LINE) FROM 'data/SCHEMA/TABLE.csv' (FORMAT csv, HEADER)

Generated columns are not in the CSV: they follow from the others. Nothing in database.dump names
a role or gives anybody a right; who may read what is for you to say.
"""


def markdown(title: str, tables: Sequence[Table], rows: dict[str, int]) -> str:
    """Every table with its columns and rules; ``rows`` is by file."""
    parts = [f"# {_words(title)}\n", f"{len(tables)} tables.\n"]
    parts += [_table(table, rows[table.file]) for table in tables]
    return "\n".join(parts)


def _table(table: Table, rows: int) -> str:
    lines = [f"## {_code(f'{table.schema}.{table.name}')}", ""]
    if table.comment:
        lines += [_words(table.comment), ""]
    lines += [f"{rows} rows in {_code(table.file)}.", ""]
    lines += ["| column | type | may be empty | is | meaning |", "|---|---|---|---|---|"]
    lines += [_column(column) for column in table.columns]
    lines += [""]
    lines += [f"- {_code(rule.definition)}" for rule in table.constraints]
    return "\n".join(lines) + "\n"


def _column(column: Column) -> str:
    source = "numbered by the database" if column.identity else None
    if column.generated:
        source = f"computed: {_code(column.default or '')}; not in the CSV"
    elif column.default is not None:
        source = f"by default {_code(column.default)}"
    cells = (
        _code(column.name),
        _code(column.type),
        "no" if column.required else "yes",
        source or "",
        _words(column.comment or ""),
    )
    return f"| {' | '.join(cells)} |"


def _words(text: str) -> str:
    """Text of a tenant on one line, with nothing that Markdown or HTML would act on."""
    line = " ".join(text.split())
    for sign in ("\\", "`", "*", "_", "[", "]", "<", ">", "|", "#"):
        line = line.replace(sign, f"\\{sign}")
    return line


def _code(text: str) -> str:
    """Text of a tenant as it is, on one line, within a table."""
    line = " ".join(text.split()).replace("|", "\\|")
    fence = "``" if "`" in line else "`"
    return f"{fence}{line}{fence}"
