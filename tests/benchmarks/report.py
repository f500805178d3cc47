"""How a benchmark speaks: what was measured, the raw tool beside it, and their ratio."""

import statistics
import sys
from collections.abc import Sequence


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def percentile(samples: Sequence[float], share: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def milliseconds(samples: Sequence[float]) -> str:
    values = [sample * 1000 for sample in samples]
    return (
        f"median {median(values):8.1f} ms   p95 {percentile(values, 0.95):8.1f} ms   "
        f"n={len(values)}"
    )


def line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def heading(text: str) -> None:
    line(f"\n{text}\n{'-' * len(text)}")
