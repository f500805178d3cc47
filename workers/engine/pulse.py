"""A file that is touched while a worker or beat does its rounds: what a health check looks at."""

from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.beat import PersistentScheduler


class PulsingScheduler(PersistentScheduler):
    """Beat's own scheduler; each of its rounds touches the file."""

    def tick(self, *args: Any, **kwargs: Any) -> float:  # noqa: ANN401 - Celery's signature
        file: Path | None = self.app.conf.tenantry_pulse_file
        if file is not None:
            file.touch()
        seconds: float = super().tick(*args, **kwargs)
        return seconds


def register_pulse(app: Celery, file: Path | None) -> None:
    """Have ``file`` touched with every heartbeat of a worker (2 s) and every round of beat."""
    app.conf.update(
        tenantry_pulse_file=file, beat_scheduler="workers.engine.pulse:PulsingScheduler"
    )
    if file is None:
        return

    @signals.heartbeat_sent.connect(weak=False)
    def beat(**_: Any) -> None:  # noqa: ANN401 - Celery's signature
        file.touch()
