"""What an action on a tenant is made of."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.console.action_forms import ActionForm
from control_plane.console.visits import Visit, Work
from control_plane.domain.operations import Operation
from control_plane.domain.plans import Kind
from control_plane.domain.tenants import Tenant, TenantState
from control_plane.services.dossier import Dossier

Group = Literal["protect", "run", "end"]
Doing: TypeAlias = Callable[[Connection, Visit, str, Any], Awaitable[Operation]]
Choices: TypeAlias = Callable[[Connection, Visit, Tenant], Awaitable[dict[str, object]]]


async def _nothing(db: Connection, visit: Visit, tenant: Tenant) -> dict[str, object]:
    del db, visit, tenant
    return {}


def _always(dossier: Dossier) -> bool:
    del dossier
    return True


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do. ``words`` say what will be true, ``destroys`` asks for the slug."""

    path: str
    label: str
    kind: Kind
    permission: str
    states: tuple[TenantState, ...]
    group: Group
    words: str
    do: Doing
    form: type[ActionForm] = ActionForm
    fields: str | None = None
    choices: Choices = _nothing
    when: Callable[[Dossier], bool] = _always
    destroys: bool = False

    def work(self, visit: Visit, tenant: str, form: ActionForm) -> Work:
        """What records the operation."""
        return lambda db: self.do(db, visit, tenant, form)
