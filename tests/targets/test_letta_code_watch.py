"""Letta Code: which turn is ours, and how it ended, follows from the frames alone."""

from typing import Any

import pytest

from promptyoself.targets.letta_code.watch import IDLE, Turn, Watch

Frame = dict[str, Any]


def loop(status: str, *runs: str, ours: dict[str, list[str]] | None = None) -> Frame:
    told = {"status": status, "active_run_ids": list(runs)}
    return {
        "type": "update_loop_status",
        "loop_status": told | ({"client_message_ids_by_run_id": ours} if ours else {}),
    }


def accepted(disposition: str = "started") -> Frame:
    return {
        "type": "input_accepted",
        "request_id": "r1",
        "accepted": True,
        "disposition": disposition,
    }


def finished(stop_reason: str, run: str | None, error: str | None = None) -> Frame:
    frame = {"type": "turn_finished", "stop_reason": stop_reason}
    return frame | ({"run_id": run} if run else {}) | ({"error": error} if error else {})


def queue(*otids: str, removed: tuple[str, ...] = ()) -> Frame:
    return {
        "type": "update_queue",
        "queue": [{"client_message_id": otid} for otid in otids],
        "removed": [{"client_message_id": otid} for otid in removed],
    }


def delta(run: str) -> Frame:
    return {"type": "stream_delta", "delta": {"run_id": run}}


WORKS = (loop("SENDING_API_REQUEST"), loop("PROCESSING_API_RESPONSE"))
REFUSED = {"type": "input_accepted", "request_id": "r1", "accepted": False, "error": "busy"}
MODEL_ERROR = '{"error": {"error": {"type": "local_backend_error", "message": "500: as told"}}}'


def seen(*frames: Frame, before: tuple[Frame, ...] = ()) -> tuple[Watch, Turn]:
    """A conversation in which these frames were seen, one each second from 0, and our turn."""
    watch = Watch("agent-1", "conv-1")
    for frame in before:
        watch.see(frame, -1.0)
    turn = watch.offer("ours", "r1", -1.0)
    for second, frame in enumerate(frames):
        watch.see(frame, float(second))
    return watch, turn


def status(watch: Watch, turn: Turn, now: float = 0.0) -> tuple[str, str | None]:
    return turn.status(now, asks=watch.asks), turn.error


def test_a_turn_from_its_beginning_to_its_end() -> None:
    frames = [accepted(), *WORKS, loop("PROCESSING_API_RESPONSE", "run-4"), loop(IDLE)]
    watch, turn = seen()
    assert status(watch, turn) == ("created", None)
    assert not turn.alive
    for frame in frames:
        watch.see(frame, 0.0)
        assert status(watch, turn) == ("running", None)
        assert turn.alive
    assert watch.idle
    watch.see(finished("end_turn", "run-4"), 0.0)
    assert status(watch, turn) == ("completed", None)
    assert not watch.turns


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ((finished("error", "run-5", MODEL_ERROR),), ("failed", "500: as told")),
        # A turn that fails before its first step has no run.
        ((finished("error", None, "Agent x not found"),), ("failed", "Agent x not found")),
        ((finished("cancelled", "run-5"),), ("cancelled", None)),
        ((finished("max_steps", "run-5"),), ("failed", "The turn ended with max_steps.")),
        # Each step of the model is a run of its own, and the end tells the last.
        (
            (loop("RUNS_A_TOOL", "run-5"), delta("run-6"), finished("end_turn", "run-6")),
            ("completed", None),
        ),
    ],
)
def test_how_a_turn_ends(frames: tuple[Frame, ...], expected: tuple[str, str | None]) -> None:
    assert status(*seen(accepted(), *WORKS, *frames)) == expected


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ((), False),
        ((accepted(), *WORKS), False),
        ((accepted(), *WORKS, finished("error", None, "Agent x not found")), False),
        # A run of a turn that was broken off may be told late, and be taken for ours.
        ((accepted(), *WORKS, delta("run-3"), finished("error", None, "an active run")), False),
        ((accepted(), *WORKS, delta("run-4")), True),
        ((accepted(), *WORKS, loop("RUNS_A_TOOL", "run-4")), True),
        ((accepted(), *WORKS, finished("error", "run-4", "500")), True),
        ((accepted(), *WORKS, delta("run-4"), finished("cancelled", "run-4")), True),
    ],
)
def test_a_run_says_that_the_prompt_was_stored(frames: tuple[Frame, ...], expected: bool) -> None:
    _, turn = seen(*frames)
    assert turn.was_stored is expected


@pytest.mark.parametrize("reason", ["cancelled", "end_turn", "error"])
def test_the_late_end_of_an_earlier_turn_is_not_ours(reason: str) -> None:
    """The server tells that a conversation is idle before it tells the end of its turn, and that of
    a turn that was broken off perhaps much later."""
    before = (loop("PROCESSING_API_RESPONSE", "run-3"), delta("run-3"), loop(IDLE))
    watch, turn = seen(accepted(), finished(reason, "run-3"), before=before)
    assert status(watch, turn) == ("running", None)
    watch.see(loop("PROCESSING_API_RESPONSE", "run-4"), 0.0)
    watch.see(finished("end_turn", "run-4"), 0.0)
    assert status(watch, turn) == ("completed", None)


def test_a_message_that_waits_in_the_queue_begins_when_it_has_left_it() -> None:
    """What was taken in behind a turn that was broken off: its end comes first."""
    watch, turn = seen(accepted("queued"), queue("ours"), finished("cancelled", "run-9"))
    assert status(watch, turn) == ("created", None)
    assert not watch.idle
    for frame in (queue(removed=("ours",)), loop(IDLE), *WORKS):
        watch.see(frame, 0.0)
        assert status(watch, turn) == ("running", None)
    watch.see(loop("PROCESSING_API_RESPONSE", "run-10", ours={"run-10": ["ours"]}), 0.0)
    watch.see(finished("cancelled", "run-9"), 0.0)
    assert status(watch, turn) == ("running", None)
    watch.see(finished("end_turn", "run-10"), 0.0)
    assert status(watch, turn) == ("completed", None)


def test_a_message_that_is_left_in_the_queue() -> None:
    """Nothing is at work, and it doesn't begin all the same."""
    watch, turn = seen(accepted("queued"), queue("ours"), *WORKS)
    assert not turn.is_held_up(99.0, loop=watch.loop)
    watch.see(loop(IDLE), 4.0)
    assert [turn.is_held_up(now, loop=watch.loop) for now in (5.0, 9.0)] == [False, True]
    watch.see(queue(removed=("ours",)), 9.0)
    assert not turn.is_held_up(99.0, loop=watch.loop)


def test_a_run_that_bears_our_id_is_ours() -> None:
    """Even where the frame that tells that it has left the queue was replaced by a later one."""
    working = loop("PROCESSING_API_RESPONSE", "run-10", ours={"run-10": ["ours"]})
    watch, turn = seen(accepted("queued"), queue("ours", "another"), working)
    assert turn.stage == "begun"
    watch.see(finished("error", "run-10", "no"), 0.0)
    assert status(watch, turn) == ("failed", "no")


def test_what_was_refused_is_no_turn() -> None:
    watch, turn = seen(REFUSED, *WORKS, finished("end_turn", "run-4"))
    assert not watch.turns
    assert turn.stage == "offered"


def test_a_turn_that_a_person_breaks_off() -> None:
    """The conversation is idle at once, while the end is told only when the model has answered."""
    watch, turn = seen(accepted(), *WORKS, loop(IDLE))  # idle from 3.0 on
    assert status(watch, turn, 8.0) == ("running", None)
    assert status(watch, turn, 8.1) == ("cancelled", None)
    assert not turn.is_over(8.0)
    watch.see(loop("SENDING_API_REQUEST"), 4.0)  # it goes on after all
    assert status(watch, turn, 20.0) == ("running", None)


def test_after_a_turn_that_never_ended_comes_another() -> None:
    watch, broken_off = seen(accepted(), *WORKS, delta("run-3"), loop(IDLE))  # from 4.0 on
    turn = watch.offer("next", "r2", 10.0)
    watch.see(accepted() | {"request_id": "r2"}, 10.0)
    watch.see(finished("cancelled", "run-3"), 10.0)
    assert status(watch, broken_off, 10.0) == ("cancelled", None)
    assert status(watch, turn, 10.0) == ("running", None)


def test_a_turn_that_nothing_is_told_of_is_asked_for() -> None:
    """A server takes a message that it has had before, and begins no turn."""
    watch, turn = seen(accepted())
    assert not turn.is_silent(5.0)
    assert turn.is_silent(5.1)
    watch.see(loop(IDLE), 5.1)  # the answer to asking
    assert status(watch, turn, 11.0) == ("cancelled", None)
    working, turn = seen(accepted(), *WORKS)
    assert not turn.is_silent(100.0)
    assert status(working, turn, 100.0) == ("running", None)


def test_a_turn_that_waits_for_an_approval() -> None:
    device = {"pending_control_requests": [{"request": {}}]}
    asks = {"type": "update_device_status", "device_status": device}
    watch, turn = seen(accepted(), *WORKS, loop("WAITING_ON_APPROVAL", "run-4"), asks)
    assert status(watch, turn) == ("waiting", None)
    assert not watch.idle
    watch.see({**asks, "device_status": {"pending_control_requests": []}}, 0.0)
    watch.see(loop("EXECUTING_CLIENT_SIDE_TOOL", "run-4"), 0.0)
    assert status(watch, turn) == ("running", None)


def test_a_conversation_is_idle_when_nothing_works_and_nothing_waits() -> None:
    watch = Watch("agent-1", "conv-1")
    assert not watch.idle
    watch.see(loop(IDLE), 0.0)
    assert watch.idle
    watch.see(queue("somebody's"), 0.0)
    assert not watch.idle
    watch.see(queue(), 0.0)
    watch.see(loop("PROCESSING_API_RESPONSE", "run-7"), 0.0)
    assert not watch.idle
    assert watch.active_run == "run-7"


def test_no_more_is_kept_than_the_last_hundred_runs() -> None:
    watch = Watch("agent-1", "conv-1")
    for number in range(1000):
        watch.see(loop("PROCESSING_API_RESPONSE", f"run-{number}"), 0.0)
    assert len(watch._runs) == 100
