"""Every value of the catalog that the keyring has sealed: found by epoch, replaced by new seals."""

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection

# A sealed value begins with its format and, in four bytes, the epoch it was sealed under.
_EPOCH = "substring({column} FROM 2 FOR 4)"


class SealedColumn(msgspec.Struct, frozen=True):
    """A column of sealed values, and as SQL the context each opens in."""

    table: str
    column: str
    owner: str
    purpose: str
    version: str

    @property
    def epoch(self) -> str:
        return _EPOCH.format(column=self.column)


class SealedValue(msgspec.Struct, frozen=True):
    """One sealed value with the context it opens in."""

    owner: UUID
    purpose: str
    version: int
    sealed: bytes


# A test compares this with the columns that the catalog really has.
COLUMNS = (
    SealedColumn("servers", "sealed_password", "id", "'server_admin'", "1"),
    SealedColumn("provided_servers", "sealed_password", "id", "'server_admin'", "1"),
    SealedColumn("credentials", "sealed", "role_set_id", "'login|' || slot", "version"),
    SealedColumn("tenant_keys", "sealed", "tenant_id", "'field'", "version"),
    SealedColumn("signing_keys", "sealed", "id", "'signing'", "1"),
)


async def older(db: Connection, column: SealedColumn, epoch: int, limit: int) -> list[SealedValue]:
    """Up to ``limit`` values of this column that another epoch has sealed."""
    rows = await db.fetch(
        f"""SELECT {column.owner} AS owner, {column.purpose} AS purpose,
                   {column.version} AS version, {column.column} AS sealed
            FROM {column.table} WHERE {column.epoch} <> $1 LIMIT $2""",  # noqa: S608 - constants of this module
        _bytes(epoch),
        limit,
    )
    return [SealedValue(**dict(row)) for row in rows]


async def replace(
    db: Connection, column: SealedColumn, changes: Sequence[tuple[bytes, bytes]]
) -> None:
    """Put new seals in the place of old ones; what has changed meanwhile stays as it is."""
    await db.execute(
        f"""UPDATE {column.table} SET {column.column} = change.fresh
            FROM unnest($1::bytea[], $2::bytea[]) AS change (known, fresh)
            WHERE {column.column} = change.known""",  # noqa: S608 - constants of this module
        [known for known, _ in changes],
        [fresh for _, fresh in changes],
    )


async def by_epoch(db: Connection) -> Counter[int]:
    """How many values each epoch has sealed."""
    found: Counter[int] = Counter()
    for column in COLUMNS:
        rows = await db.fetch(
            f"""SELECT {column.epoch} AS epoch, count(*) AS number FROM {column.table}
                WHERE {column.column} IS NOT NULL GROUP BY 1"""  # noqa: S608 - constants of this module
        )
        for row in rows:
            found[int.from_bytes(row["epoch"], "big")] += row["number"]
    return found


def _bytes(epoch: int) -> bytes:
    return epoch.to_bytes(4, "big")
