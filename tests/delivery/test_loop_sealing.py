"""The loop seals months that are over, beside its deliveries and without harm to them."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from checker import check_chain
from dispatch import Place
from loops import Here, wait_for

from promptyoself.service.delivery import sealer
from promptyoself.service.desires.manage import record
from promptyoself.service.proof.verify import verify


def sealed(place: Place) -> list[str]:
    """The months that the log says are sealed."""
    events = check_chain(place.var / "schedules", settled=False)
    return [event["data"]["month"] for event in events if event["type"] == "segment.sealed"]


def months(place: Place) -> list[str]:
    """The months that there are."""
    return [path.name[:7] for path in sorted((place.var / "schedules").glob("*.ndjson.gz"))]


def to_the_next_month(place: Place) -> None:
    """Turn the clock to a moment after the month's end."""
    now = place.now()
    first = (now.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=1)
    place.ahead += first - now


def test_it_seals_when_a_month_has_ended(place: Place) -> None:
    """A loop that runs over a month's end seals that month, with one event, though nothing else
    happens; and so each month after."""
    place.register(3, time="in 200d")
    with Here(place, interval=0.05):
        time.sleep(0.3)
        assert sealed(place) == []
        for ended in (1, 2):
            to_the_next_month(place)
            wait_for(lambda ended=ended: len(sealed(place)) == ended)
            assert sealed(place) == months(place)[:ended]
        time.sleep(0.3)
    assert len(sealed(place)) == 2
    assert place.warnings == []
    assert verify(place.store)["sealed"] == 2


def test_it_seals_what_was_left_unsealed(place: Place) -> None:
    """Months that ended while no loop ran are sealed when one starts."""
    place.register(1, time="in 200d")
    for _ in range(2):
        to_the_next_month(place)
        place.register(1, time="in 200d", each=2)
    with Here(place, interval=60.0):
        wait_for(lambda: len(sealed(place)) == 2)
    assert place.warnings == []


def test_it_seals_the_desires_months_too(place: Place) -> None:
    """The months of the desires are sealed alike; where their log is damaged, the others still."""
    place.register(1, time="in 200d")
    record(place.store, "agent-0", "Learn Danish", 0.5, [], place.now())
    to_the_next_month(place)
    with Here(place, interval=60.0):
        wait_for(lambda: len(sealed(place)) == 1)
        wait_for(lambda: "segment.sealed" in place.store.desires.read().state.counts)
    assert verify(place.store.desires)["sealed"] == 1
    (place.var / "desires" / "2020-01.ndjson.gz").write_bytes(b"noise")
    place.register(1, time="in 200d", each=2)
    to_the_next_month(place)
    with Here(place, interval=60.0):
        wait_for(lambda: len(sealed(place)) == 2)


def slow_seal(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Let sealing begin and then wait; the events of its beginning and of going on."""
    begun, go_on, real = threading.Event(), threading.Event(), sealer.seal

    def slow(*arguments: Any, **more: Any) -> Any:
        begun.set()
        go_on.wait(60)
        return real(*arguments, **more)

    monkeypatch.setattr(sealer, "seal", slow)
    return begun, go_on


def test_deliveries_go_on_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: while a large month is sealed, what is due is delivered."""
    begun, go_on = slow_seal(monkeypatch)
    place.register(1, time="in 200d")
    to_the_next_month(place)
    with Here(place):
        assert begun.wait(60)
        place.register(5)
        wait_for(lambda: place.types()["delivery.delivered"] == 5)
        assert sealed(place) == []
        go_on.set()
        wait_for(lambda: sealed(place))


def test_it_ends_though_a_month_is_being_sealed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop doesn't wait for a large month, whose sealing may be cut off anywhere."""
    begun, go_on = slow_seal(monkeypatch)
    monkeypatch.setattr(sealer, "_PATIENCE_SECONDS", 0.2)
    place.register(1, time="in 200d")
    to_the_next_month(place)
    with Here(place):
        assert begun.wait(60)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    go_on.set()
    wait_for(lambda: sealed(place))


def failing(error: Exception, calls: list[float]) -> Callable[..., Any]:
    """A sealing that can't be done."""

    def fail(*_: Any, **__: Any) -> Any:
        calls.append(time.monotonic())
        raise error

    return fail


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a bug")])
def test_a_failure_is_a_warning(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What goes wrong with sealing is said once, tried again much later, and stops no delivery."""
    calls: list[float] = []
    monkeypatch.setattr(sealer, "seal", failing(error, calls))
    place.register(1, time="in 200d")
    to_the_next_month(place)
    with Here(place, interval=0.05):
        wait_for(lambda: calls)
        place.register(5)
        wait_for(lambda: place.types()["delivery.delivered"] == 5)
        assert len(calls) == 1
        assert len(place.warnings) == 1
        assert place.warnings[0].startswith("The log could not be sealed or compacted: ")
    calls.clear()
    monkeypatch.setattr(sealer, "_TRY_AGAIN_SECONDS", 0.2)
    with Here(place, interval=0.05):
        wait_for(lambda: len(calls) == 2)
        assert calls[1] - calls[0] >= 0.2


def test_two_loops(place: Place) -> None:
    """P5: of two loops one seals, the other leaves it to it, and each month is recorded once."""
    place.register(1, time="in 200d")
    for _ in range(3):
        to_the_next_month(place)
        place.register(1, time="in 200d", each=2)
    other = Place(place.var)
    other.ahead = place.ahead
    try:
        with Here(place, interval=0.05), Here(other, interval=0.05):
            wait_for(lambda: len(sealed(place)) == 3)
            to_the_next_month(place)
            other.ahead = place.ahead
            wait_for(lambda: len(sealed(place)) == 4)
            time.sleep(0.3)
    finally:
        other.close()
    assert sorted(sealed(place)) == months(place)[:4]
    assert place.warnings == other.warnings == []
    assert verify(place.store)["sealed"] == 4


def test_it_looks_once_a_month(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: an idle loop asks whether there is something to seal once a month, not at every pass."""
    looks, real = [], sealer.has_unsealed

    def counted(*arguments: Any) -> bool:
        looks.append(real(*arguments))
        return looks[-1]

    monkeypatch.setattr(sealer, "has_unsealed", counted)
    place.register(1, time="in 200d")
    with Here(place, interval=0.02):
        time.sleep(0.5)
        assert looks == [False]
        to_the_next_month(place)
        wait_for(lambda: sealed(place))
        time.sleep(0.3)
    assert looks == [False, True]
