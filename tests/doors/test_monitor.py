"""What a running loop serves: /metrics and /healthz, in a thread of its own, which is never in the
loop's way."""

import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from calling import append_foreign, call
from dispatch import FakeLetta, Place
from loops import Here, Loop, add, events, loops, sandbox, wait_for
from monitors import Watched, parsed
from world import check_slots

from promptyoself.doors import monitor
from promptyoself.doors.monitor import Monitor
from promptyoself.sandbox import Sandbox
from promptyoself.service.delivery import loop
from promptyoself.service.delivery.loop import Heartbeat, StopFlag, run_loop
from promptyoself.service.delivery.target_trouble import Trouble
from promptyoself.service.metrics.collect import Measurer
from promptyoself.targets.api import DeliveryError
from promptyoself.targets.letta import LettaClient

__all__ = ["loops", "sandbox"]


def get(url: str, method: str = "GET") -> tuple[int, str, bytes]:
    """Status, content type, content."""
    answer = httpx.request(method, url, trust_env=False, timeout=60)
    return answer.status_code, answer.headers["Content-Type"], answer.content


def health(url: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The status, and each check by name."""
    status, kind, content = get(f"{url}/healthz")
    assert kind == "application/json"
    document = orjson.loads(content)
    assert document["status"] == ("success" if status == 200 else "error")
    if status != 200:
        assert (status, document["code"], document["error"]) == (
            503, "unhealthy", document["message"])  # fmt: skip
    return status, {check["name"]: check for check in document["checks"]}


@pytest.fixture
def watched(var: Path) -> Watched:
    return Watched()


@pytest.fixture
def url(watched: Watched) -> Iterator[str]:
    with watched.monitor.serving(0) as url:
        wait_for(lambda: get(f"{url}/metrics")[0] == 200)
        yield url


# --- what is answered -----------------------------------------------------------------------------


def test_both_are_served_and_nothing_else(url: str) -> None:
    """/metrics is what `metrics` prints and the loop's own; /healthz says that all is well; any
    other path or method is an error in JSON."""
    status, kind, text = get(f"{url}/metrics?x=1")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert parsed(text)["promptyoself_schedules"]["active",] == 1
    assert parsed(text)["promptyoself_loop_passes_total"][()] == 0
    assert set(parsed(text)["promptyoself_health"].values()) == {1.0}
    assert health(url)[0] == 200
    assert get(f"{url}/healthz", "HEAD")[::2] == (200, b"")
    for path, method, code, status in (
        ("/", "GET", "not_found", 404),
        ("/metrics/", "GET", "not_found", 404),
        ("/metrics", "POST", "bad_request", 501),
    ):
        answered, kind, content = get(f"{url}{path}", method)
        assert (answered, kind) == (status, "application/json")
        assert orjson.loads(content)["code"] == code


def test_it_listens_on_loopback_only(watched: Watched) -> None:
    """Nobody on the network can ask, nor at any other address of this machine."""
    with watched.monitor.serving(0) as url, pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", int(url.rpartition(":")[2])), timeout=5)


def test_a_port_in_use_is_one_error(url: str, watched: Watched) -> None:
    """P7: a port that is taken is said before the loop begins: one error, and no event."""
    port = url.rpartition(":")[2]
    call("execute", "--loop", "--metrics-port", port).error("port_in_use")
    assert not events(watched.settings.var, "worker")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--metrics-port", "0"), "conflicting_options"),
        (("--loop", "--metrics-port", "65536"), "invalid_value"),
        (("--loop", "--metrics-port", "-1"), "invalid_value"),
        (("--loop", "--metrics-port", "http"), "invalid_value"),
    ],
)
def test_a_port_that_makes_no_sense(var: Path, arguments: tuple[str, ...], code: str) -> None:
    """P7: only a loop serves metrics, and on a port that there is."""
    call("execute", *arguments).error(code, exit_code=2)


# --- whether it is well ---------------------------------------------------------------------------


def test_a_loop_without_passes_is_not_well(
    url: str, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """healthz is false when the next pass is long overdue, and says why; a pass makes it well."""
    heartbeat = watched.heartbeat
    heartbeat.passed(datetime.now(UTC), 1000.0)
    assert health(url)[0] == 200
    heartbeat.next_by = time.monotonic() - 20
    assert health(url)[0] == 200  # the lock alone may take ten seconds
    heartbeat.next_by = time.monotonic() - 41
    heartbeat.error = "No space left on device"
    status, checks = health(url)
    assert status == 503
    assert (checks["loop"]["ok"], checks["loop"]["code"]) == (False, "no_pass")
    assert "No space left" in checks["loop"]["detail"]
    assert checks["letta"]["ok"] is checks["chain"]["ok"] is True
    assert parsed(get(f"{url}/metrics")[2])["promptyoself_health"]["loop",] == 0
    heartbeat.passed(datetime.now(UTC), 0.0)
    assert health(url)[0] == 200


def test_a_letta_in_trouble_is_not_well(url: str, watched: Watched) -> None:
    """healthz is false while deliveries are held back, for as long as that is news."""
    watched.heartbeat.troubles = {"letta": Trouble("letta_unauthorized", time.monotonic() + 100)}
    status, checks = health(url)
    assert (status, checks["letta"]["code"]) == (503, "letta_unauthorized")
    watched.heartbeat.troubles = {"letta": Trouble("letta_unauthorized", time.monotonic() - 1)}
    assert health(url)[0] == 200


def test_a_letta_that_was_never_asked_is_asked(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is due, whether Letta lets us in is asked: 401, a server that is down, one that
    merely has too much to do; not at every request."""
    monkeypatch.setattr(monitor, "_CHECK_EVERY", 0.0)
    with Sandbox(("a",), token="right") as there:
        right = LettaClient(there.url, "right")
        wrong = LettaClient(there.url, "wrong")
        for letta, code in ((right, ""), (wrong, "letta_unauthorized")):
            with Watched(letta).monitor.serving(0) as url:
                status, checks = health(url)
                assert (status, checks["letta"]["code"]) == (503 if code else 200, code)
        there.fault("rate_limit", route="runs", times=1)
        with Watched(right).monitor.serving(0) as url:
            assert health(url)[0] == 200
    with Watched(LettaClient(there.url, "right")).monitor.serving(0) as url:
        status, checks = health(url)
        assert (status, checks["letta"]["code"]) == (503, "letta_unreachable")


def test_letta_is_asked_now_and_then(url: str, watched: Watched) -> None:
    """However often somebody asks here, Letta is asked every 15 seconds at most."""
    asked: list[int] = []
    watched.letta.ended_runs = asked.append
    watched.monitor._checks["letta"]._asked_at = float("-inf")
    for _ in range(5):
        assert health(url)[0] == 200
    assert asked == [1]


def test_a_letta_that_hangs_holds_nobody_up(
    url: str, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Letta is being asked, what is known is answered."""
    monkeypatch.setattr(monitor, "_CHECK_WAIT", 0.05)
    let_go = threading.Event()
    watched.letta.ended_runs = lambda _: let_go.wait(60)
    watched.monitor._checks.clear()
    assert health(url)[0] == health(url)[0] == 200
    assert not let_go.is_set()
    let_go.set()


def test_a_chain_that_is_refused_is_not_well(url: str, watched: Watched, var: Path) -> None:
    """P4: healthz is false where the log is damaged or too new; and /metrics gives no figures of
    it, but the error."""
    append_foreign(var, type="moon.landed", id=None)
    assert health(url)[1]["chain"]["code"] == "newer_events"
    (path,) = (var / "schedules").glob("*.ndjson.gz")
    content = bytearray(path.read_bytes())
    content[30:40] = bytes(10)
    path.write_bytes(content)
    (var / "schedules" / "index.json").unlink()
    another = Monitor(
        watched.store, watched.heartbeat, {"letta": watched.letta}, lambda: datetime.now(UTC)
    )
    with another.serving(0) as there:
        status, checks = health(there)
        assert (status, checks["chain"]["code"]) == (503, "corrupt_chain")
        wait_for(lambda: b"corrupt_chain" in get(f"{there}/metrics")[2])
        assert get(f"{there}/metrics")[0] == 503


def test_while_the_log_is_counted_it_says_so(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long log takes a while: meanwhile /metrics is `not_ready`, and /healthz answers."""
    let_go = threading.Event()
    measure = Measurer.measure

    def slowly(self: Measurer, now: datetime) -> Any:
        let_go.wait(60)
        return measure(self, now)

    monkeypatch.setattr(Measurer, "measure", slowly)
    with watched.monitor.serving(0) as url:
        status, _, content = get(f"{url}/metrics")
        assert (status, orjson.loads(content)["code"]) == (503, "not_ready")
        assert health(url)[0] == 200
        let_go.set()
        wait_for(lambda: get(f"{url}/metrics")[0] == 200)


# --- what is done to it ---------------------------------------------------------------------------


def test_a_bug_is_one_answer(url: str, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is an error in JSON and a warning, and the next request is answered."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Measurer, "measure", broken)
    status, _, content = get(f"{url}/metrics")
    assert (status, orjson.loads(content)["code"]) == (500, "internal_error")
    assert any("a bug" in warning for warning in watched.warnings)
    assert health(url)[0] == 200


@pytest.mark.parametrize(
    "said", [b"", b"GET /metr", b"GET /healthz HTTP/1.1\r\nX: ", b"\0\xff\r\n"]
)
def test_a_slow_client_is_left(url: str, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that says nothing, or never comes to an end, holds the others up for a moment
    only, even if a byte trickles in now and then."""
    monkeypatch.setattr(monitor, "_REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(monitor._Handler, "timeout", 0.5)
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    stop = threading.Event()
    with socket.create_connection(address) as slow:
        slow.sendall(said)

        def trickle() -> None:
            while not stop.wait(0.1):
                try:
                    slow.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        assert health(url)[0] == 200
        stop.set()
        thread.join()


def test_no_connection_is_kept(url: str) -> None:
    """Each connection ends with its answer, also where HTTP/1.1 and keep-alive were asked for."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as asking:
        asking.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
        asking.settimeout(20)
        content = b""
        while piece := asking.recv(65536):
            content += piece
    assert content.startswith(b"HTTP/1.0 200")


# --- with a loop ----------------------------------------------------------------------------------


def test_a_real_loop_tells_of_itself(sandbox: Sandbox, var: Path, loops: Any) -> None:
    """A loop in a process of its own: it prints where it serves, its deliveries show, and it ends
    in order."""
    one: Loop = loops("--metrics-port", "0", "--interval", "60")
    assert one.process.stdout is not None
    first = orjson.loads(one.process.stdout.readline())
    url = first["metrics"].removesuffix("/metrics")
    assert first["health"] == f"{url}/healthz"
    id_ = add(sandbox.agents[0])
    wait_for(lambda: events(var, "delivery.delivered"))
    metrics: dict[str, Any] = {}

    def shown() -> bool:
        metrics.update(parsed(get(f"{url}/metrics")[2]))
        return bool(metrics["promptyoself_deliveries_in_flight"][()] == 0)

    wait_for(shown)
    assert metrics["promptyoself_slots_total"] == {("delivered", "run"): 1.0}
    assert metrics["promptyoself_delivery_lateness_seconds_count"][()] == 1
    assert metrics["promptyoself_agent_budget_left"] == {(sandbox.agents[0],): 499.0}
    assert metrics["promptyoself_workers"][()] == 1
    assert metrics["promptyoself_loop_passes_total"][()] >= 1
    assert health(url)[0] == 200
    assert [line["executed"][0]["id"] for line in one.stop()] == [id_]


def test_a_loop_keeps_its_pulse(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that fails is no pass, and its error is shown; one that succeeds says when the next
    one is to come; trouble with Letta is shown and ends."""
    place.register(1, time="in 1h")
    heartbeat, stop = Heartbeat(), StopFlag()
    monkeypatch.setattr(loop, "_TROUBLE_PAUSE", 0.05)
    stamp = place.store._ledger.stamp
    failures = iter([OSError(28, "No space left on device")] * 3)
    seen: list[tuple[int, str]] = []

    def failing() -> object:
        seen.append((heartbeat.passes, heartbeat.error))
        for error in failures:
            raise error
        return stamp()

    monkeypatch.setattr(place.store._ledger, "stamp", failing)

    def sleep(*_: Any, **__: Any) -> None:
        if heartbeat.passes:
            assert heartbeat.next_by > time.monotonic() + 50
            assert heartbeat.error == ""
            stop.set("enough")

    monkeypatch.setattr(loop._Loop, "sleep", sleep)
    run_loop(place.store, place.targets, place.now, concurrency=1, interval=60.0, stop=stop,
             emit=lambda _: None, heartbeat=heartbeat)  # fmt: skip
    assert [passes for passes, _ in seen[:4]] == [0, 0, 0, 0]
    assert "No space left" in seen[3][1]
    assert heartbeat.passes == 1


def test_trouble_is_shown_until_somebody_should_have_tried_again(place: Place) -> None:
    """A dispatcher that holds back says what keeps it, and until when that may be believed."""
    worker = place.worker()
    assert worker.troubles == {}
    place.register(1)

    def refused(*_: Any) -> Any:
        raise DeliveryError("unauthorized", "letta_unauthorized", "No.")

    place.letta.active_runs = place.letta.all_active_runs = refused
    worker.tick(place.now())
    wait_for(lambda: worker.wait(0.1) or worker.troubles)
    assert worker.troubles["letta"].code == "letta_unauthorized"
    assert worker.troubles["letta"].until > time.monotonic()


def test_a_scrape_waits_for_nobody_and_nobody_for_it(url: str, watched: Watched) -> None:
    """P5: scraping needs no lock: it works while another process keeps the log's lock, and a writer
    can append while it is scraped."""
    store = watched.store()
    with store.exclusive():
        assert get(f"{url}/metrics")[0] == 200
        assert health(url)[0] == 200


def test_scrapes_in_a_storm_are_right_and_harm_nothing(place: Place) -> None:
    """P2, P5: scraped without a pause while 60 prompts are delivered, the loop delivers each once;
    no figure ever runs backwards, and in the end they are what the log says."""
    place.register(20, each=3)
    heartbeat = Heartbeat()
    watching = Monitor(place.another_store, heartbeat, {"letta": FakeLetta()}, place.now)
    seen: list[float] = []
    with watching.serving(0) as url, Here(place, heartbeat=heartbeat) as here:

        def scraped() -> float:
            metrics = parsed(get(f"{url}/metrics")[2])
            return sum(metrics.get("promptyoself_slots_total", {}).values())

        wait_for(lambda: get(f"{url}/metrics")[0] == 200)
        while not seen or seen[-1] < 60:
            assert here.error is None
            assert health(url)[0] == 200
            seen.append(scraped())
    assert seen == sorted(seen)
    assert set(place.letta.sends.values()) == {1}
    assert len(place.letta.sends) == place.types()["delivery.delivered"] == 60
    assert check_slots(
        [event for batch in place.store.replay() for event in batch.envelopes], place.now()
    ) == {"delivered": 60}
