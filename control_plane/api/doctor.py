"""The doctor over HTTP: what is wrong with the deployment, as the API's machine sees it."""

from typing import Any

import msgspec
from litestar import Controller, Request, get

from control_plane.api.context import Reading, process_of
from control_plane.api.documents import refusals
from control_plane.config import secret_files
from control_plane.domain.doctor import Diagnosis, Level
from control_plane.services.doctor import examine


class DiagnosisView(msgspec.Struct, frozen=True):
    """One part; ``remedy`` says how to mend what is no ``ok``."""

    part: str
    level: Level
    found: str
    remedy: str | None


class DoctorReport(msgspec.Struct, frozen=True):
    """Every part that was looked at; ``healthy`` when none has a problem."""

    healthy: bool
    diagnoses: list[DiagnosisView]


class DoctorController(Controller):
    """One examination at a time: it tries the store."""

    path = "/doctor"
    tags = ("operations",)

    @get(operation_id="examineDeployment", responses=refusals())
    async def examine(self, asking: Reading, request: Request[Any, Any, Any]) -> DoctorReport:
        """What is wrong with the deployment, and how to mend it."""
        ports = asking.ports
        async with process_of(request).checking:
            found = await examine(ports.settings, ports.catalog, ports.doorbell, secret_files())
        healthy = not any(one.level == "problem" for one in found)
        return DoctorReport(healthy, [diagnosis_view(one) for one in found])


def diagnosis_view(diagnosis: Diagnosis) -> DiagnosisView:
    """The JSON of a diagnosis."""
    return DiagnosisView(
        part=diagnosis.part,
        level=diagnosis.level,
        found=diagnosis.found,
        remedy=diagnosis.remedy,
    )
