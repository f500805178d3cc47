"""What must be true of the catalog and those who make servers: a pure comparison, both ways."""

from collections.abc import Iterator, Sequence
from uuid import UUID

import msgspec

from control_plane.domain.invariants import Finding
from control_plane.domain.providers import ProviderKind

_GONE = "I-3"


class ExpectedInstance(msgspec.Struct, frozen=True):
    """A provided server as the catalog knows it. ``busy``: it is being created or deleted.

    ``ready``: it was made; ``enrolled``: it is a server of the fleet.
    """

    id: UUID
    name: str
    provider: ProviderKind
    ready: bool
    enrolled: bool
    busy: bool


class FoundProvider(msgspec.Struct, frozen=True):
    """What one provider has: instances by id, as it names them; or why it cannot be asked."""

    kind: ProviderKind
    instances: dict[UUID, str] = {}
    problem: str | None = None


def provider_findings(
    expected: Sequence[ExpectedInstance], found: Sequence[FoundProvider]
) -> list[Finding]:
    """Every difference, in a stable order."""
    known = {one.id for one in expected}
    findings: list[Finding] = []
    for provider in found:
        if provider.problem is not None:
            remedy = "mend its settings or its network: docs/providers.md"
            findings.append(Finding(_GONE, provider.kind, provider.problem, remedy))
            continue
        findings += _ours(provider, [one for one in expected if one.provider == provider.kind])
        for key in sorted(provider.instances.keys() - known):
            message = f"{provider.instances[key]} was made by {provider.kind}; it is in no catalog"
            remedy = "delete it there once nothing needs it"
            findings.append(Finding(_GONE, provider.instances[key], message, remedy))
    asked = {provider.kind for provider in found}
    for one in expected:
        if one.provider not in asked:
            message = f"was made by {one.provider}, which is not set up any more"
            findings.append(Finding(_GONE, one.name, message, "set it up again: docs/providers.md"))
    return findings


def _ours(provider: FoundProvider, expected: Sequence[ExpectedInstance]) -> Iterator[Finding]:
    for one in expected:
        if one.busy:
            continue
        if one.enrolled and one.id not in provider.instances:
            message = f"{provider.kind} has no such server any more"
            remedy = "restore its tenants elsewhere; then: tenantry servers delete " + one.name
            yield Finding(_GONE, one.name, message, remedy)
        elif not one.enrolled or not one.ready:
            message = f"{provider.kind} was asked for it, and it is no server of the fleet"
            remedy = f"tenantry operations retry what failed, or tenantry servers delete {one.name}"
            yield Finding(_GONE, one.name, message, remedy)
