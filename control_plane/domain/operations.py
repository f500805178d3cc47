"""What an operation is: a row with an ordered list of steps, and the rules of trying again."""

import datetime as dt
from typing import Any, Literal, get_args
from uuid import UUID

import msgspec

OperationState = Literal[
    "pending", "running", "waiting", "succeeded", "failed", "cancelling", "cancelled"
]
StepState = Literal["pending", "running", "done", "skipped", "failed"]
Queue = Literal["control", "transfer"]

OPERATION_STATES: tuple[OperationState, ...] = get_args(OperationState)
LIVE_STATES: tuple[OperationState, ...] = ("pending", "running", "waiting", "cancelling")

# A retryable error is tried again until the deadline; a bug or an unknown database error
# will hardly mend itself, so those stop after this many attempts of one step.
MAX_UNEXPLAINED_ATTEMPTS = 5
_UNEXPLAINED = frozenset({"database_error", "internal_error"})


class Step(msgspec.Struct, frozen=True):
    """One step of an operation as recorded."""

    name: str
    state: StepState
    attempts: int = 0
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    detail: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class Operation(msgspec.Struct, frozen=True):
    """One operation as recorded; ``input`` is what the verb was asked for."""

    id: UUID
    kind: str
    subject: str
    state: OperationState
    queue: Queue
    tenant_id: UUID | None
    server_id: UUID | None
    database_id: UUID | None
    input: dict[str, Any]
    result: dict[str, Any] | None
    actor: str
    epoch: int
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    deadline: dt.datetime
    error_code: str | None
    error_message: str | None
    steps: tuple[Step, ...] = ()

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES


def retry_delay(attempts: int, cap_seconds: float, jitter: float) -> float:
    """Seconds until the next attempt: 0.5 s doubling to the cap, spread by ``jitter`` in 0…1."""
    base = min(cap_seconds, 0.5 * 2.0 ** min(attempts - 1, 16))
    return base * (0.75 + 0.5 * jitter)


def may_retry(code: str, *, retryable: bool, attempts: int) -> bool:
    """Whether a step that failed with this error is worth another attempt."""
    if not retryable:
        return False
    return code not in _UNEXPLAINED or attempts < MAX_UNEXPLAINED_ATTEMPTS
