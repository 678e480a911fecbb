"""Prompts with values: what a template may do, and that it always ends soon and small."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptyoself.core.errors import PromptyoselfError
from promptyoself.rules.templates import (
    MAX_STEPS,
    MAX_TEXT,
    VALUES,
    TemplateFault,
    check_template,
    render,
)

AT = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
FILLED = {
    "now": AT,
    "slot": AT,
    "zone": "UTC",
    "fire_number": 3,
    "name": "plan",
    "agent": "agent-1",
    "last_run": None,
    "last_reply": "Done.\nAll three.",
    "desires": [{"text": "learn Rust", "tags": ["code"], "strength": 0.9}],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Plain text.", "Plain text."),
        ("Line.\n", "Line.\n"),
        ("{{ now|date }}", "2026-11-30 09:00"),
        ("{{ now|date('%A %-d %B') }}", "Monday 30 November"),
        ("{{ now.year }}-{{ now.month }}", "2026-11"),
        ("{{ now.strftime('%A, %-d %B') }}", "Monday, 30 November"),
        ("{{ now.strftime('%H') }}{{ slot.date().strftime('%d') }}", "0930"),
        ("{{ slot.isoformat() }} {{ zone }}", "2026-11-30T09:00:00+00:00 UTC"),
        ("Fire #{{ fire_number }} of {{ name }} for {{ agent }}", "Fire #3 of plan for agent-1"),
        ("{% if last_run %}Last: {{ last_run|date }}{% else %}First.{% endif %}", "First."),
        ("{{ last_run|date }}", ""),
        ("{{ name|truncate(3) }}", "plan"),
        ("{{ last_reply|first }}", "D"),
        (
            "{% for d in desires %}- {{ d.text }} ({{ d.strength }}){% endfor %}",
            "- learn Rust (0.9)",
        ),
        ("{{ desires|length }} {{ desires[0].tags|join(', ') }}", "1 code"),
        ("{% for n in range(3) %}{{ loop.index }}{% endfor %}", "123"),
        ("{{ fire_number + 1 }} {{ fire_number * 2 }} {{ 'a' ~ 1 ~ 'b' }}", "4 6 a1b"),
        ("{{ 'a-b'|replace('-', '+') }}", "a+b"),
        ("{{ now.weekday() == 0 and 'Monday' or 'other' }}", "Monday"),
        ("{# a remark #}text", "text"),
        ("{% raw %}{{ verbatim }}{% endraw %}", "{{ verbatim }}"),
    ],
)
def test_a_template_is_filled_in(template: str, text: str | None) -> None:
    check_template(template)
    if text is None:
        with pytest.raises(TemplateFault):
            render(template, FILLED)
    else:
        assert render(template, FILLED) == text


@pytest.mark.parametrize("name", VALUES)
def test_each_value_can_be_named(name: str) -> None:
    check_template(f"{{{{ {name} }}}}")
    assert render(f"{{{{ {name} }}}}", FILLED) == str(FILLED[name])


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{{ now", 1),
        ("a\nb {% for %}", 2),
        ("{% if now %}", 1),
        ("{{ now|nosuch }}", None),
        ("{{ now is nosuch }}", None),
        ("{% include 'x' %}", 1),
        ("{% import 'x' as y %}", 1),
        ("{% extends 'x' %}", 1),
        ("{% macro m() %}{% endmacro %}", 1),
        ("{% block b %}{% endblock %}", 1),
        ("{% set s %}a{% endset %}", 1),
        ("{% filter upper %}a{% endfilter %}", 1),
        ("{% for n in [1] recursive %}{{ loop([1]) }}{% endfor %}", 1),
        ("{{ self }}", 1),
        ("{{ last_reply.splitlines()|first }}", 1),
        ("{{ now.replace(year=1) }}", 1),
        ("a\n{{ nosuch() }}", 2),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", 1),
        ("{{ _steps.clear() }}", 1),
        ("{{ 2 ** 100000 }}", 1),
        ("{{ '%1000000000d' % 1 }}", 1),
        ("(" * 10_000 + "{{" + "(" * 10_000, None),
    ],
)
def test_a_wrong_template_is_refused_with_its_line(template: str, line: int | None) -> None:
    with pytest.raises(PromptyoselfError) as refusal:
        check_template(template)
    assert refusal.value.code == "invalid_template"
    assert refusal.value.hint
    if line is not None:
        assert refusal.value.details["line"] == line


@pytest.mark.parametrize("template", ["{{ month }}", "{% if x %}{% endif %}"])
def test_an_unknown_variable_is_refused(template: str) -> None:
    with pytest.raises(PromptyoselfError) as refusal:
        check_template(template)
    assert refusal.value.code == "unknown_variable"


@pytest.mark.parametrize(
    "template",
    [
        "{{ now.strftime('%01000000000d') }}",
        "{{ now|date('%01000000000d') }}",
        "{{ now|date('x' * 10) }}",
        "{{ 'a' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ range(1000000000)|list }}",
        "{% for n in range(1000000000) %}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in range(9999) %}{{ last_reply|sort }}{{ last_reply|sort }}{% endfor %}",
        "{{ range(9999)|join('a'|replace('a', 'b' ~ 'c')|replace('b', last_reply)) }}"
        "{% for a in range(9999) %}{{ range(9999)|join(last_reply) }}{% endfor %}",
        "{% set s = 'aaaaaaaaaa' %}" + "{% set s = s ~ s %}" * 40 + "{{ s }}",
        "{% set s = 'aaaaaaaaaa' %}" + "{% set s = s + s %}" * 40 + "{{ s }}",
        "{% set s = 'aaaaaaaaaa' %}" + "{% set s = s|replace('a', s) %}" * 10 + "{{ s }}",
        "{% set s = 'a' %}" + "{% set s = s ~ s %}" * 20 + "{{ s }}" * 100,
        "{% set n = 9 %}" + "{% set n = n * n %}" * 60 + "{{ n }}",
        "{% set s = 'abcdefgh' %}"
        + "{% set s = s ~ s %}" * 13
        + "{% for n in range(9999) %}{% if s[1:] == s %}{% endif %}{% endfor %}",
        "{% set s = 'abcdefgh' %}"
        + "{% set s = s ~ s %}" * 13
        + "{% for n in range(9999) %}{% if 'x' in s %}{% endif %}{% endfor %}",
        "{{ now.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ ''.format }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ desires.append(1) }}",
        "{{ range.__globals__ }}",
        "{{ now.astimezone() }}",
        "{{ 1 / 0 }}",
        "{{ last_run.year }}",
        "{{ desires[5].text }}",
    ],
)
def test_what_a_template_may_not_do_is_a_fault_and_ends_at_once(template: str) -> None:
    begun = time.thread_time()
    with pytest.raises(TemplateFault) as fault:
        render(template, FILLED)
    assert time.thread_time() - begun < 2
    assert 0 < len(str(fault.value)) <= 500


def test_the_bounds_are_those_that_are_said() -> None:
    assert (
        len(render("{% for n in range(" + str(MAX_STEPS) + ") %}a{% endfor %}", FILLED))
        == MAX_STEPS
    )
    long = "x" * MAX_TEXT
    assert render(long, FILLED) == long
    with pytest.raises(TemplateFault):
        render(long + "x", FILLED)


WORDS = (
    "{{ }} {% %} for in if endfor else endif now desires | last_reply join replace date ~ + * ( ) "
    "[ ] . text 'a' 3 range loop set ="
)
PIECES = st.sampled_from(WORDS.split())


@settings(deadline=None)
@given(st.lists(PIECES, max_size=14).map(" ".join))
def test_any_template_is_filled_in_or_refused(template: str) -> None:
    """There is no other exception."""
    try:
        check_template(template)
        assert len(render(template, FILLED)) <= MAX_TEXT
    except (PromptyoselfError, TemplateFault):
        pass
