"""What a rule may look at besides the statement."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from control_plane.adapters.revision_lint.findings import Broken
from control_plane.adapters.revision_lint.schema import Schema
from control_plane.adapters.revision_lint.syntax import Message


@dataclass(frozen=True)
class Context:
    """The schema before the statement, and the revision the statement belongs to.

    ``qualified`` says that search_path is pg_catalog, so that every name must give its schema.
    """

    schema: Schema
    revision: str
    privileged: bool
    transactional: bool
    qualified: bool

    def empty(self, table: str) -> bool:
        """Whether the table can have no rows yet: nobody waits for a lock on it."""
        return self.schema.empty(table, self.revision)


Rule: TypeAlias = Callable[[Message, Context], Iterator[Broken]]
