"""What the tests of parsers draw: instants, and texts that somebody might type; and how they are
refused."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from chains import refused
from hypothesis import strategies as st

from promptyoself.core.errors import PromptyoselfError

NOW = datetime(2026, 11, 20, 20, 30, tzinfo=UTC)
INSTANTS = st.timedeltas(timedelta(0), timedelta(36500)).map(
    lambda passed: datetime(1990, 1, 1, tzinfo=UTC) + passed
)
HOSTILE = st.one_of(
    st.text(max_size=60),
    st.text("0123456789*/-,LW#?@:T +Zzinhdmsw.\u0663\x00\n", max_size=40),
    st.lists(st.text("0123456789*/-,MONJAN", max_size=8), max_size=7).map(" ".join),
)


def utc(text: str) -> datetime:
    """An instant, as ISO 8601 without an offset."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def refusal(code: str, call: Callable[..., object], *arguments: Any) -> PromptyoselfError:
    """The error with that code, with which a call is refused."""
    with refused(code) as caught:
        call(*arguments)
    return caught.value
