from dataclasses import dataclass

import pytest

from control_plane.api.limits import make_limits
from control_plane.services import limiting
from control_plane.services.limiting import Limiter


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_allowed_up_to_the_limit_and_then_told_when() -> None:
    clock = Clock()
    limiter = Limiter(3, clock)
    assert [limiter.take("a") for _ in range(4)] == [None, None, None, 20]


def test_keys_do_not_share() -> None:
    limiter = Limiter(1, Clock())
    assert limiter.take("a") is None
    assert limiter.take("a") is not None
    assert limiter.take("b") is None


def test_waiting_as_told_is_enough() -> None:
    clock = Clock()
    limiter = Limiter(3, clock)
    while (wait := limiter.take("a")) is None:
        pass
    clock.now += wait
    assert limiter.take("a") is None


def test_asking_while_empty_does_not_make_it_longer() -> None:
    clock = Clock()
    limiter = Limiter(60, clock)
    for _ in range(60):
        limiter.take("a")
    for _ in range(1000):
        assert limiter.take("a") == 1
    clock.now += 1.0
    assert limiter.take("a") is None


def test_an_idle_key_never_saves_up_more_than_the_limit() -> None:
    clock = Clock()
    limiter = Limiter(2, clock)
    limiter.take("a")
    clock.now += 3600
    assert [limiter.take("a") is None for _ in range(3)] == [True, True, False]


def test_memory_is_bounded_without_forgiving_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiting, "_MOST_BUCKETS", 10)
    clock = Clock()
    limiter = Limiter(60, clock)
    for _ in range(60):
        limiter.take("greedy")
    for number in range(9):
        limiter.take(number)
    clock.now += 2.0
    limiter.take("late")
    assert len(limiter._buckets) == 2
    assert [limiter.take("greedy") is None for _ in range(3)] == [True, True, False]


def test_reveals_and_failed_logins_get_a_hundredth() -> None:
    made = make_limits(6000)
    assert sum(made.reveals.take("k") is None for _ in range(100)) == 60
    assert sum(made.failed_logins.take("ip") is None for _ in range(100)) == 60
