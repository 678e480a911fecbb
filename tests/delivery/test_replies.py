"""P10: what an agent answers is read after its prompt's outcome, recorded once, or given up; and
never in the way of a prompt."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from dispatch import FakeLetta, Place

from promptyoself.doors.commands.delivery import _pass
from promptyoself.service.delivery import reply_reader
from promptyoself.service.delivery.report import Report
from promptyoself.service.schedules.change import modify
from promptyoself.service.schedules.request import Request
from promptyoself.targets.api import HISTORY_GAP, DeliveryError, Message, Reply

Data = dict[str, Any]


class Talking(FakeLetta):
    """Its agents answer what the test has them say, if it does."""

    def __init__(self) -> None:
        super().__init__()
        self.says: Reply | DeliveryError | None = Reply("Done.", ("search", "note"))
        self.asked: list[tuple[Message, str | None]] = []

    def reply(self, message: Message, since: datetime, run_id: str | None) -> Reply | None:
        del since
        self._enter("reply", message.agent_id)
        self.asked.append((message, run_id))
        if isinstance(self.says, DeliveryError):
            raise self.says
        return self.says


@pytest.fixture
def letta() -> Talking:
    return Talking()


@pytest.fixture
def place(tmp_path: Path, letta: Talking) -> Iterator[Place]:
    """A data directory in which answers are kept as the default has it."""
    place = Place(tmp_path / "var", letta, PROMPTYOSELF_KEEP_REPLY="excerpt")
    yield place
    place.close()


def answers(place: Place) -> list[Data]:
    """What the log has of answers, of both types."""
    types = ("delivery.replied", "delivery.unanswered")
    return [event["data"] for event in place.events() if event["type"] in types]


def test_an_answer_follows_its_outcome(place: Place, letta: Talking) -> None:
    (id_,) = place.register(1)
    worker = place.worker()
    (report,) = [report for report in place.run(worker) if report.replies]
    (answer,) = answers(place)
    (delivered,) = [e["data"] for e in place.events() if e["type"] == "delivery.delivered"]
    assert delivered["keep_reply"] == "excerpt"
    assert answer == {
        "slot": delivered["slot"],
        "otid": delivered["otid"],
        "worker": delivered["worker"],
        "kept": "full",
        "bytes": 5,
        "sha256": sha256(b"Done.").hexdigest(),
        "text": "Done.",
        "run_id": delivered["run_id"],
        "tools": ["search", "note"],
    }
    assert report.replies == [
        {"id": id_, "agent_id": "agent-0", "slot": delivered["slot"], "replied": True}
        | {"kept": "full", "bytes": 5}
    ]
    types = [event["type"] for event in place.events()]
    assert types.index("delivery.delivered") < types.index("delivery.replied")
    ((message, run_id),) = letta.asked
    assert (message.otid, message.conversation, run_id) == (
        delivered["otid"],
        "default",
        delivered["run_id"],
    )
    state = place.store.read().state
    assert state.replies == {}
    assert str(state.schedules[id_].replied).endswith(f":{types.index('delivery.replied') + 1}")
    place.check_delivered(1)


LONG = "é" * 3000  # 6,000 bytes


@pytest.mark.parametrize(
    ("ceiling", "asked", "kept", "size"),
    [
        ("excerpt", None, "excerpt", 4096),
        ("excerpt", "full", "excerpt", 4096),
        ("excerpt", "hash", "hash", None),
        ("full", None, "full", 6000),
        ("full", "excerpt", "excerpt", 4096),
        ("hash", "full", "hash", None),
    ],
)
def test_as_much_is_kept_as_both_allow(
    tmp_path: Path, ceiling: str, asked: str | None, kept: str, size: int | None
) -> None:
    """The setting is a default and a ceiling. What is left out can still be told by its hash."""
    letta = Talking()
    letta.says = Reply(LONG)
    place = Place(tmp_path / "var", letta, PROMPTYOSELF_KEEP_REPLY=ceiling)
    place.register(1, **({} if asked is None else {"time": "in 1s", "keep_reply": asked}))
    place.run(place.worker())
    (answer,) = answers(place)
    assert (answer["kept"], answer["bytes"]) == (kept, 6000)
    assert answer["sha256"] == sha256(LONG.encode()).hexdigest()
    text = answer.get("text")
    assert (None if text is None else len(text.encode())) == size
    assert text is None or LONG.startswith(text)
    place.close()


@pytest.mark.parametrize(("less", "kept"), [("hash", "hash"), ("none", None)])
def test_less_may_be_kept_than_when_it_was_asked(
    place: Place, letta: Talking, less: str, kept: str | None
) -> None:
    """Who says, while an answer is awaited, that less is to be kept, is heeded."""
    letta.says = None
    changed, other = place.register(2, every="1h")
    place.ahead += timedelta(hours=1, seconds=1)
    worker = place.worker()
    place.run(worker, until=lambda: len(letta.asked) >= 2)
    modify(place.store, changed, Request(keep_reply=less), place.now())
    letta.says = Reply("Yes.")
    place.run(worker, until=lambda: len(answers(place)) == 2)
    told = {event["id"]: event["data"] for event in place.events() if "sha256" in event["data"]}
    assert told[other]["kept"] == "full"
    assert told.get(changed, {}).get("kept") == kept
    if kept is None:
        assert [answer["code"] for answer in answers(place) if "code" in answer] == ["not_kept"]
        assert place.store.read().state.replies == {}


@pytest.mark.parametrize(("ceiling", "asked"), [("none", "full"), ("full", "none")])
def test_nobody_asks_for_what_is_not_kept(tmp_path: Path, ceiling: str, asked: str) -> None:
    letta = Talking()
    place = Place(tmp_path / "var", letta, PROMPTYOSELF_KEEP_REPLY=ceiling)
    place.register(1, time="in 1s", keep_reply=asked)
    place.run(place.worker())
    assert not letta.asked
    assert not answers(place)
    assert place.store.read().state.replies == {}
    place.close()


@pytest.mark.parametrize(
    ("says", "code", "error"),
    [
        (Reply(None, ("search",)), "no_answer", "The agent's turn ended without an answer."),
        (DeliveryError("permanent", HISTORY_GAP, "Summed up."), HISTORY_GAP, "Summed up."),
        (DeliveryError("permanent", "agent_not_found", "Gone."), "agent_not_found", "Gone."),
    ],
)
def test_that_there_is_none_is_recorded(
    place: Place, letta: Talking, says: Reply | DeliveryError, code: str, error: str
) -> None:
    letta.says = says
    place.register(1)
    place.run(place.worker())
    (answer,) = answers(place)
    assert (answer["code"], answer["error"]) == (code, error)
    assert place.store.read().state.replies == {}


def test_texts_that_no_log_can_hold(place: Place, letta: Talking) -> None:
    """A lone surrogate is written out; control characters stay, since JSON can say them."""
    letta.says = Reply("a\0\x1b[31m\u202e\ud800z", ("\ud800" * 200,) + ("t",) * 99)
    place.register(1)
    place.run(place.worker())
    (answer,) = answers(place)
    assert answer["text"] == "a\0\x1b[31m\u202e\\ud800z"
    assert len(answer["tools"]) == 50
    assert len(answer["tools"][0]) == 100


def test_what_fails_is_read_again(place: Place, letta: Talking) -> None:
    """The outcome stands meanwhile, and the next slot of the agent isn't held up."""
    letta.says = DeliveryError("doubt", "letta_server_error", "HTTP 500.")
    place.register(1, each=3)
    worker = place.worker()
    place.run(worker, until=lambda: place.types()["delivery.delivered"] == 3)
    assert not answers(place)
    letta.says = Reply("Late.")
    place.run(worker, until=lambda: place.types()["delivery.replied"] == 3)
    assert len(letta.asked) >= 4
    place.check_delivered(3)


def test_what_cannot_be_had_is_given_up(
    place: Place, letta: Talking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a week, and the log says why."""
    monkeypatch.setattr(reply_reader, "_LONGEST_PAUSE", 0.1)
    letta.says = DeliveryError("doubt", "letta_server_error", "HTTP 500.")
    place.register(1)
    worker = place.worker()
    place.run(worker, until=lambda: len(letta.asked) > 2)
    place.ahead += timedelta(days=7)
    place.run(worker, until=lambda: place.types()["delivery.unanswered"] == 1)
    (answer,) = answers(place)
    assert (answer["code"], answer["error"]) == (
        "reply_not_had",
        "It could not be read for 7d: HTTP 500.",
    )


def test_a_long_sleep_gives_no_answer_up(place: Place, letta: Talking) -> None:
    """Where the machine slept for longer than is waited, a first read that fails isn't the last:
    its network may take a moment."""
    letta.says = DeliveryError("doubt", "letta_unreachable", "Cannot reach Letta.")
    place.register(1)
    awake = place.worker()
    place.run(awake, until=lambda: place.types()["delivery.delivered"] == 1)
    place.die(awake)
    place.ahead += timedelta(days=8)
    before, worker = len(letta.asked), place.worker()
    place.run(worker, until=lambda: len(letta.asked) > before + 1 or bool(answers(place)))
    letta.says = Reply("Late.")
    place.run(worker, until=lambda: bool(answers(place)))
    assert answers(place)[0]["text"] == "Late."


def test_another_worker_reads_on(place: Place, letta: Talking) -> None:
    """P1: what a dead worker would have read, the next one reads: once, with two of them."""
    letta.says = None
    place.register(2)
    dead = place.worker()
    place.run(dead, until=lambda: len(letta.asked) >= 2)
    place.die(dead)
    letta.says = Reply("Done.")
    pair = place.worker(), place.worker(store=place.another_store())
    place.run(*pair, until=lambda: place.types()["delivery.replied"] == 2)
    place.run(*pair)
    assert place.types()["delivery.replied"] == 2
    place.check_delivered(2)


def test_a_living_worker_s_answers_are_left_to_it(place: Place, letta: Talking) -> None:
    letta.says = None
    place.register(1)
    first = place.worker()
    place.run(first, until=lambda: len(letta.asked) >= 1)
    asked = len(letta.asked)
    other = place.worker(store=place.another_store())
    place.run(other, until=lambda: other.idle)
    assert len(letta.asked) == asked
    assert other.next_wake(place.now()) is not None  # it sees whether the first one is dead


def test_prompts_come_first(place: Place, letta: Talking) -> None:
    """While deliveries take all seats, one answer is read at a time."""
    reading = Counter[str]()
    seen: dict[bool, list[int]] = {True: [], False: []}  # by whether prompts are still to be sent

    def before(call: str, agent: str) -> None:
        if call == "reply":
            reading[agent] += 1
            seen[letta.sends.total() < 12].append(reading.total())
            time.sleep(0.02)
            reading[agent] -= 1

    letta.before = before
    place.register(12)
    place.run(place.worker(concurrency=1))
    assert place.types()["delivery.replied"] == 12
    assert max(seen[True], default=0) <= 1


def test_what_hangs_holds_nothing_up(place: Place, letta: Talking) -> None:
    """Reads have threads of their own: prompts go on while all of these hang."""
    release = threading.Event()

    def before(call: str, _agent: str) -> None:
        if call == "reply":
            release.wait(60)

    letta.before = before
    place.register(8)
    worker = place.worker()
    place.run(worker, until=lambda: place.types()["delivery.delivered"] == 8)
    place.register(8, prompt_of="later")
    place.run(worker, until=lambda: place.types()["delivery.delivered"] == 16)
    assert not answers(place)
    place.wait(worker, lambda: letta.calls["reply"] == 4)
    release.set()
    place.run(worker, until=lambda: place.types()["delivery.replied"] == 16)


def test_a_full_disk_loses_no_answer(place: Place, letta: Talking) -> None:
    """P1: it is kept, and recorded once there is room."""
    letta.says = None
    place.register(1)
    worker = place.worker()
    place.run(worker, until=lambda: len(letta.asked) >= 1)
    place.disk.full = True
    letta.says = Reply("Done.")
    place.wait(worker, lambda: worker._in_flight.replies.answers)
    with pytest.raises(OSError, match="No space"):
        worker.tick(place.now())
    place.disk.full = False
    place.run(worker, until=lambda: place.types()["delivery.replied"] == 1)


def test_an_answer_is_awaited_without_work(place: Place, letta: Talking) -> None:
    """A turn that waits for somebody costs a read every ten minutes, and no pass in between."""
    letta.says = None
    place.register(1)
    worker = place.worker()
    place.run(worker)
    (reading,) = worker._in_flight.replies._readings.values()
    pauses = []
    for reading.tries in range(1, 99):
        pauses.append(reading.pause())
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[20:] == [600.0] * 78
    assert worker.idle


def test_a_pass_says_what_it_has_read() -> None:
    """The message counts prompts, and answers and notices where there were no prompts."""
    read: Data = {"replied": True}
    lines = Report([], [], [read, read, {"replied": False}], [{"sent": True}, {"sent": False}])
    message = "2 answers read, 1 unanswered, 1 notice sent, 1 notice not taken"
    assert _pass(lines)["message"] == message
    assert _pass(Report([], [], [read], []))["message"] == "1 answer read"
    executed = {"delivered": True, "state": "delivered"}
    assert _pass(Report([executed], [], [read], []))["message"] == "1 prompt executed"
    assert _pass(Report([], [], [], []))["message"] == "0 prompts executed"
