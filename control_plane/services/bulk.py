"""Many tenants at once: each line judged as the request itself would be, then begun by itself."""

import msgspec

from control_plane.catalog.audit import Caller
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Invalid, NoCapacity, SlugTaken, TenantryError
from control_plane.domain.tenant_lines import TenantLine, check_line
from control_plane.services.placing import NewTenant
from control_plane.services.ports import Ports
from control_plane.services.rehearsal import rehearse
from control_plane.services.wizard import free_slug, rehearse_in


class Verdict(msgspec.Struct, frozen=True):
    """What would come of a line: a place with its reason, or a column that is wrong and why.

    ``line`` has the slug that was made of the name where it had none.
    """

    line: TenantLine
    server: str | None = None
    reason: str | None = None
    field: str | None = None
    problem: str | None = None

    @property
    def good(self) -> bool:
        return self.problem is None


async def judge(ports: Ports, caller: Caller, lines: list[TenantLine]) -> list[Verdict]:
    """Every line in its turn, as if those before it had been carried out; nothing is kept."""

    async def work(db: Connection) -> list[Verdict]:
        owners: dict[str, int] = {}
        verdicts = []
        for line in lines:
            verdict = await _judge(db, ports, caller, line, owners)
            verdicts.append(verdict)
            if verdict.good:
                owners[verdict.line.slug] = line.number
        return verdicts

    return await rehearse(ports, work)


def wanted_of(line: TenantLine) -> NewTenant:
    """The request that a line makes.

    Raises:
        Invalid: a cell cannot be meant.
    """
    tier = check_line(line)
    return NewTenant(line.slug, line.name, tier, line.region or None, line.server or None)


def told(error: TenantryError) -> tuple[str, str]:
    """The column that an error is about, and what is wrong with it."""
    if isinstance(error, Invalid) and error.errors:
        return error.errors[0].get("field", ""), error.errors[0].get("message", error.message)
    if isinstance(error, SlugTaken):
        return "slug", error.message
    if isinstance(error, NoCapacity):
        return "server", error.message
    return "", error.message


async def _judge(
    db: Connection, ports: Ports, caller: Caller, line: TenantLine, owners: dict[str, int]
) -> Verdict:
    try:
        check_line(line)
        if not line.slug:
            line = msgspec.structs.replace(line, slug=await _made_slug(db, line))
        if line.slug in owners:
            message = f"line {owners[line.slug]} has it already; choose another"
            return Verdict(line, field="slug", problem=message)
        async with db.transaction():
            made = await rehearse_in(db, ports, caller, wanted_of(line))
    except TenantryError as error:
        field, message = told(error)
        return Verdict(line, field=field, problem=message)
    return Verdict(line, made.tenant.server, made.tenant.placement_reason)


async def _made_slug(db: Connection, line: TenantLine) -> str:
    slug = await free_slug(db, line.name)
    if not slug:
        message = "give one: nothing in the name can be used"
        raise Invalid(message, [{"field": "slug", "message": message}])
    return slug
