"""Overlays: a mapping with changes over a base, of which branches share what is old."""

from collections.abc import Iterator, KeysView

from hypothesis import given, settings
from hypothesis import strategies as st
from tally import rounds

from promptyoself.state.overlay import _MOST_YOUNG, Overlay, one

KEYS = st.integers(0, 3 * _MOST_YOUNG)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 5), st.lists(KEYS, max_size=2 * _MOST_YOUNG)),
        st.tuples(st.just("branch"), st.integers(0, 5), st.just([])),
        st.tuples(st.just("read"), st.integers(0, 5), st.just([])),
    ),
    max_size=30,
)


@settings(max_examples=rounds(200))
@given(STEPS)
def test_a_branch_leaves_the_others_as_they_are(steps: list[tuple[str, int, list[int]]]) -> None:
    """P4: whatever is set in one branch, whenever it was made, each has what a dict would have that
    was copied in its place."""
    made: list[tuple[Overlay[int], dict[str, int]]] = [(Overlay(one), {})]
    value = 0
    for what, which, keys in steps:
        table, model = made[which % len(made)]
        if what == "branch":
            made.append((table.copy(), dict(model)))
        elif what == "read":
            assert table.changes == model
        for key in keys:
            value += 1
            table[str(key)] = model[str(key)] = value
    for table, model in made:
        for key in map(str, range(3 * _MOST_YOUNG + 1)):
            assert table.get(key) == model.get(key)
        assert (dict(table.items()), len(table)) == (model, len(model))


def test_a_branch_copies_no_more_than_what_is_recent() -> None:
    """P8: an event's cost doesn't grow with those since the index was written: of ten thousand
    changes, a branch has few to itself."""
    table: Overlay[int] = Overlay(one)
    for number in range(10_000):
        table = table.copy()
        table[str(number)] = number
        assert len(table._young) <= _MOST_YOUNG + 1
    assert len(table) == 10_000
    assert table.copy()._old is table._old


def test_threads_that_look_at_once_lose_nothing() -> None:
    """P4: a state may be read by several threads; what one of them does to make reading cheaper
    doesn't take anything from what another is just looking at."""

    class Interrupted(dict[str, int]):
        """While it is read, another thread has its turn."""

        def __iter__(self) -> Iterator[str]:
            return super().__iter__()  # overridden, so that `keys` is asked

        def keys(self) -> KeysView[str]:
            if not others:
                others.append(1)
                assert table.changes == {"a": 1, "b": 2}
            return super().keys()

    others: list[int] = []
    table: Overlay[int] = Overlay(one)
    table["a"] = 1
    assert table.changes == {"a": 1}
    table._old = Interrupted(table._old)
    table["b"] = 2
    assert table.changes == {"a": 1, "b": 2}
    assert others
    assert (table.get("a"), table.get("b"), len(table)) == (1, 2, 2)
