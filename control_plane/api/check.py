"""The check over HTTP: the catalog against reality, and the safe repairs."""

from typing import Any

import msgspec
from litestar import Controller, Request, Response, get, post

from control_plane.api.context import Reading, Writing, answer, effect, process_of
from control_plane.api.documents import refusals
from control_plane.catalog import audit
from control_plane.catalog.audit import Entry
from control_plane.catalog.pool import Connection
from control_plane.domain.invariants import Finding
from control_plane.services.check import repair_safe, run_check
from control_plane.services.requests import Effect


class FindingView(msgspec.Struct, frozen=True):
    """One difference; ``repair`` names the provably safe mend, if there is one."""

    code: str
    subject: str
    message: str
    remedy: str
    repair: str | None


class CheckReport(msgspec.Struct, frozen=True):
    """What was found, after what was mended."""

    findings: list[FindingView]
    repaired: list[FindingView]


class CheckController(Controller):
    """One check at a time: it looks at every server."""

    path = "/check"
    tags = ("operations",)

    @get(operation_id="runCheck", responses=refusals())
    async def check(self, asking: Reading, request: Request[Any, Any, Any]) -> CheckReport:
        """Every difference between the catalog, the servers and the poolers."""
        async with process_of(request).checking:
            found = await run_check(asking.ports)
        return CheckReport([finding_view(one) for one in found], [])

    @post("/repairs", operation_id="repairFindings", status_code=200, responses=refusals(409, 413))
    async def repair(
        self, changing: Writing, request: Request[Any, Any, Any]
    ) -> Response[CheckReport]:
        """Mend what is provably safe to mend, then look again."""
        actor = changing.caller.principal.name
        async with process_of(request).checking:
            repaired = await repair_safe(changing.ports, actor=actor)
            left = await run_check(changing.ports)
        report = CheckReport(
            [finding_view(one) for one in left], [finding_view(one) for one in repaired]
        )

        async def note(db: Connection) -> Effect:
            facts: dict[str, object] = {"repaired": len(repaired), "left": len(left)}
            await audit.record(db, changing.caller, Entry("check.repair", "fleet", facts=facts))
            return effect(200, report)

        # Repairing twice is harmless, so a repeat may do it again; its answer is the first one.
        return answer(await changing.perform(note), CheckReport)


def finding_view(finding: Finding) -> FindingView:
    """The JSON of a finding."""
    return FindingView(
        code=finding.invariant,
        subject=finding.subject,
        message=finding.message,
        remedy=finding.remedy,
        repair=finding.repair,
    )
