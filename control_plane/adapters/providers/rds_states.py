"""What the status of an RDS instance means for one that is being made or deleted.

https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/accessing-monitoring.html: whatever is named
nowhere here is on its way.
"""

from collections.abc import Mapping
from typing import Any

from control_plane.adapters.providers.provider import InstanceState

# Nothing to take a last snapshot of, or RDS takes none in this state.
NO_SNAPSHOT = frozenset(
    {
        "creating",
        "failed",
        "inaccessible-encryption-credentials",
        "incompatible-create",
        "incompatible-network",
        "incompatible-restore",
        "insufficient-capacity",
        "restore-error",
    }
)
# It answers, although something is done behind it, for hours.
_SERVING = frozenset({"available", "storage-initialization", "storage-optimization"})
# From these an instance does not recover by itself; what somebody can do about it.
_STUCK: Mapping[str, str] = {
    "inaccessible-encryption-credentials-recoverable": "make its key usable again, and start it",
    "incompatible-option-group": "correct its option group",
    "incompatible-parameters": "correct its parameter group",
    "stopped": "start it",
    "storage-full": "give it more storage",
}


def state_of(found: Any) -> tuple[InstanceState, str]:  # noqa: ANN401 - see rds.py
    """The state of an instance as RDS describes it, and why."""
    status = found.get("DBInstanceStatus", "creating")
    if status in _STUCK:
        return "failed", f"status {status} ({_STUCK[status]} there, and retry)"
    if status in _SERVING:
        return _serving(found, f"status {status}")
    state: InstanceState = "failed" if status in NO_SNAPSHOT - {"creating"} else "creating"
    return ("deleting" if status == "deleting" else state), f"status {status}"


def _serving(found: Any, detail: str) -> tuple[InstanceState, str]:  # noqa: ANN401 - see rds.py
    groups = {one.get("ParameterApplyStatus") for one in found.get("DBParameterGroups", [])}
    # Made just before the instance, a group may come too late for its first start.
    if "pending-reboot" in groups:
        return "creating", f"{detail}, but its parameters wait for a reboot: reboot it there"
    if "applying" in groups:
        return "creating", f"{detail}, and its parameters are being applied"
    return "available", detail
