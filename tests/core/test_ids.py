"""P6: deterministic names."""

from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from promptyoself.core.ids import content_hash, desire_id, schedule_id, slot_otid
from promptyoself.events.schedule_fields import CONTENT, content_of
from promptyoself.state.schedules import Schedule

CONTENTS = st.fixed_dictionaries(
    {
        name: st.one_of(st.none(), st.text(max_size=5))
        for name in CONTENT
        if name != "max_repetitions"
    }
    | {"max_repetitions": st.one_of(st.none(), st.integers(1, 9))}
)


def test_the_fields_of_the_content_are_pinned() -> None:
    """P6: what makes a schedule the one it is may not change: every id depends on it."""
    assert CONTENT == (
        "agent_id", "conversation_id", "prompt", "name", "schedule_type", "schedule_value",
        "timezone", "start_at", "until", "max_repetitions", "template", "render",
        "target",
    )  # fmt: skip


def test_the_forms_are_pinned() -> None:
    """P6: one content, one salt and one slot, with the names they will have for ever."""
    content = {"agent_id": "agent-7", "prompt": "Hello", "schedule_type": "once", "name": None}
    assert content_hash(content)[:8] == "d9a6c001"
    assert schedule_id(content) == "sch_d9a6c001"
    assert schedule_id(content, 1) == "sch_74f3664a"
    assert schedule_id({**content, "template": None}) == "sch_d9a6c001"
    desire = {"agent_id": "agent-7", "text": "Hello", "recorded_at": "2026-11-20T12:00:00.000000Z"}
    assert desire_id(desire) == "des_5eb80300"
    otid = slot_otid("sch_d9a6c001", "2026-11-20T12:00:00.000000Z")
    assert otid == "ee77906a-5ca7-5007-b5b3-1e5b3ad77f90"
    assert UUID(otid).version == 5


@given(CONTENTS, st.randoms(use_true_random=False))
def test_the_order_of_fields_is_nothing(content: dict[str, Any], random: Any) -> None:
    """P6: the same content in another order has the same id, and what isn't set isn't hashed."""
    items = list(content.items())
    random.shuffle(items)
    assert schedule_id(dict(items)) == schedule_id(content)
    said = {name: value for name, value in content.items() if value is not None}
    assert schedule_id(said) == schedule_id(content)


@given(CONTENTS, CONTENTS)
def test_other_content_has_another_hash(one: dict[str, Any], two: dict[str, Any]) -> None:
    """P6: two contents have the same hash only where they are the same."""
    assert (content_hash(one) == content_hash(two)) is (one == two)


@given(CONTENTS, st.integers(1, 1000))
def test_a_salt_changes_the_id_and_keeps_its_form(content: dict[str, Any], salt: int) -> None:
    """P6: with a salt the form stays sch_<sha8>, and the hash is another."""
    id_ = schedule_id(content, salt)
    assert content_hash(content, salt) != content_hash(content)
    assert len(id_) == 12
    assert id_.startswith("sch_")
    assert set(id_[4:]) <= set("0123456789abcdef")
    assert schedule_id(content, 0) == schedule_id(content)


def test_every_field_of_the_content_is_a_schedules() -> None:
    """P6: the content can be told of a registration and of a schedule alike."""
    assert set(CONTENT) < set(Schedule._fields)
    values = dict.fromkeys(Schedule._fields, "x")
    assert content_of(Schedule(**values)) == dict.fromkeys(CONTENT, "x")  # type: ignore[arg-type]
