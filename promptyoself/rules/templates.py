"""Prompts with values: texts that Jinja2 fills in when a slot is claimed.

A template comes from an agent, so it can do nothing but make a text. It has no attributes but those
of times, no functions but ``range``, and few filters. Its loops, and all texts that it makes on the
way, are bounded, so that it ends soon, and alike on every machine.

Pure. Jinja2 takes 40 ms to import, so only what meets a template imports this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, cast

from jinja2 import (
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
    nodes,
    pass_context,
)
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context  # noqa: TC002  # pass_context looks at annotations
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from promptyoself.core.errors import PromptyoselfError

VALUES = {
    "now": "when the prompt is sent, by the clocks of its zone",
    "slot": "when it was due, by the clocks of its zone",
    "zone": "the name of its zone",
    "fire_number": "how often its times have made it fire, this time counted",
    "name": "the schedule's name, or its id",
    "agent": "the agent's id",
    "last_run": "when it was sent last; none at first",
    "last_reply": "what the agent answered then, as far as that is kept; none at first",
    "desires": "the agent's strongest desires, each with its text, tags and strength",
}
"""What a template may name, and what that is."""

MAX_TEXT = 128 * 1024
"""Characters that a filled-in prompt may have, and any text that it makes on the way.

The log has the text of each claim. A character takes up to 6 bytes of JSON there, and all claims of
a pass are one append, which may have 64 MiB. With this, 64 claims at once have room.
"""

MAX_TEMPLATE = 32 * 1024
"""Characters of a template, which has to be compiled under the lock of the log."""

MAX_STEPS = 10_000
"""How often all loops of a template may go round. A filter, a sum, a part of a text and a
comparison count as one, and as one more for each 1,000 characters or items that they handle."""

_MAX_BITS = 1024  # of a whole number
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "first", "float", "int", "last", "length", "list",
    "lower", "max", "min", "reverse", "round", "sort", "sum", "title", "trim", "truncate", "unique",
    "upper", "wordcount",
)  # fmt: skip
_METHODS = ("isoformat", "weekday", "isoweekday", "date", "time")
_REFUSED = {
    nodes.AssignBlock: "set with a block",
    nodes.Block: "block",
    nodes.CallBlock: "call",
    nodes.Extends: "extends",
    nodes.FilterBlock: "filter with a block",
    nodes.FromImport: "from",
    nodes.Import: "import",
    nodes.Include: "include",
    nodes.Macro: "macro",
    nodes.Mod: "%",
    nodes.Pow: "**",
}
_HINT = (
    "`promptyoself register --help` shows a template; without --render the text is sent as it is."
)


class TemplateFault(Exception):
    """A template can't be filled in. The text says why, for the log."""


def check_template(text: str) -> None:
    """Refuse a template that could never be filled in.

    Raises:
        PromptyoselfError: ``invalid_template``, with the ``line``; ``unknown_variable``.
    """
    if len(text) > MAX_TEMPLATE:
        message = f"The template has {len(text)} characters; {MAX_TEMPLATE} is the most."
        raise PromptyoselfError("invalid_template", message, _HINT)
    try:
        _compiled(text)
        unknown = sorted(_names(text) - {*VALUES, "range"})
    except TemplateSyntaxError as error:
        message = f"The template is wrong in line {error.lineno}: {_sentence(error.message)}"
        raise PromptyoselfError("invalid_template", message, _HINT, line=error.lineno) from None
    except (TemplateError, RecursionError, SyntaxError, MemoryError) as error:
        what = error.msg if isinstance(error, SyntaxError) else error
        message = f"The template is wrong: {_sentence(what)}"
        raise PromptyoselfError("invalid_template", message, _HINT) from None
    if unknown:
        raise PromptyoselfError(
            "unknown_variable",
            f"The template names {unknown[0]!r}, which there isn't.",
            f"There are {', '.join(VALUES)}.",
            value=unknown[0],
        )


def _sentence(what: object) -> str:
    """What Jinja2 or Python says, with one full stop at its end."""
    return f"{str(what).rstrip('.')}."


def names_value(text: str, name: str) -> bool:
    """Whether a template names that value. It doesn't if it can't be read."""
    try:
        return name in _names(text)
    except (TemplateError, RecursionError):
        return False


def render(text: str, values: Mapping[str, Any]) -> str:
    """The template filled in.

    ``values`` has what :data:`VALUES` names: times are aware datetimes, and a desire is a mapping.

    Raises:
        TemplateFault: it names something that isn't there, does what it may not, or is too large.
    """
    chunks: list[str] = []
    size = 0
    try:
        for chunk in _compiled(text).generate({**values, "_steps": [0]}):
            size += len(chunk)
            if size > MAX_TEXT:
                raise TemplateFault(f"It makes more than {MAX_TEXT} characters.")
            chunks.append(chunk)
    except TemplateFault:
        raise
    except Exception as error:  # whatever a template does wrong, Python says it in its own way
        raise TemplateFault(f"{type(error).__name__}: {error}"[:500]) from None
    return "".join(chunks)


# --- the sandbox --------------------------------------------------------------------------------


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2 with little in it."""

    intercepted_binops = frozenset("*")

    def __init__(self) -> None:
        # Nothing is computed ahead, since what is in a template is bounded when it is filled in.
        super().__init__(undefined=StrictUndefined, optimized=False, keep_trailing_newline=True)
        self.globals = {"range": _range}
        self.filters = {name: self.filters[name] for name in _FILTERS} | {
            "date": _date,
            "join": _join,
            "replace": _replace,
            "_bounded": _bounded,
            "_counted": _counted,
            "_weighed": _weighed,
        }

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ARG002
        """Whether a template may have an attribute: those of times, and the parts of a loop."""
        is_known = isinstance(obj, date | time | timedelta) or type(obj).__name__ == "LoopContext"
        return is_known and not attr.startswith("_") and attr != "strftime"

    def wrap_str_format(self, value: Any) -> None:
        """No text has ``format``, which reads attributes in its own way."""

    def is_safe_callable(self, obj: Any) -> bool:
        """Whether a template may call something."""
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        return obj is _range or (isinstance(owner, date | time) and name in _METHODS)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """A product of numbers. That of a text and a number could be of any size."""
        for factor in (left, right):
            if not isinstance(factor, int | float | timedelta):
                raise TemplateFault("Only numbers can be multiplied.")
        return _of_size(super().call_binop(context, operator, left, right))


class _Bounding(NodeTransformer):
    """Puts a bound around each loop, each sum, and what each filter is given."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802  # Jinja's name
        """A loop, which may not call itself."""
        if node.recursive:
            raise TemplateSyntaxError("a recursive loop isn't taken", node.lineno)
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_counted")
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Filter:  # noqa: N802
        """A filter and what it is given."""
        self.generic_visit(node)
        if node.node is not None:
            node.node = _filtered(node.node, "_weighed")
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Expr:  # noqa: N802
        """A call of what may be called: of anything else, a template would fail each time.

        ``strftime`` is what people write first, so it is taken, as the filter ``date``.
        """
        called = node.node
        name = getattr(called, "attr", getattr(called, "name", None))
        if isinstance(called, nodes.Getattr) and name == "strftime":
            filtered = nodes.Filter(
                called.node, "date", node.args, node.kwargs, None, None, lineno=node.lineno
            )
            return self.visit_Filter(filtered)
        if name not in (*_METHODS, "range"):
            raise TemplateSyntaxError(f"the call of {name!r} isn't taken", node.lineno)
        self.generic_visit(node)
        return node

    def visit_Add(self, node: nodes.Add) -> nodes.Filter:  # noqa: N802
        """A sum, also of texts."""
        self.generic_visit(node)
        return _filtered(_filtered(node, "_bounded"), "_weighed")

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
        """Texts in a row, which are measured before they are joined."""
        self.generic_visit(node)
        joined = _filtered(nodes.List(node.nodes, lineno=node.lineno), "join")
        return _filtered(joined, "_weighed")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        """An item, or a part of a text or a list, which is another text or list."""
        self.generic_visit(node)
        return _filtered(node, "_weighed") if isinstance(node.arg, nodes.Slice) else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802
        """A comparison, or whether something is in a text or a list."""
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "_weighed")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "_weighed")
        return node

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        """Any other part, if it is taken."""
        for kind, name in _REFUSED.items():
            if isinstance(node, kind):
                raise TemplateSyntaxError(f"{name!r} isn't taken", node.lineno)
        if isinstance(node, nodes.Name) and (node.name == "self" or node.name.startswith("_")):
            raise TemplateSyntaxError(f"the name {node.name!r} isn't taken", node.lineno)
        return super().generic_visit(node, *args, **kwargs)


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)


@lru_cache(maxsize=64)
def _names(text: str) -> frozenset[str]:
    return frozenset(find_undeclared_variables(_SANDBOX.parse(text)))


@lru_cache(maxsize=64)
def _compiled(text: str) -> Template:
    tree = _Bounding().visit(_SANDBOX.parse(text))
    code = _SANDBOX.compile(tree)
    return Template.from_code(_SANDBOX, code, _SANDBOX.make_globals(None))


def _count(context: Context, steps: int) -> None:
    """Use up steps. Raises :class:`TemplateFault` when there are none left."""
    used: list[int] = context["_steps"]
    used[0] += steps
    if used[0] > MAX_STEPS:
        raise TemplateFault(f"It takes more than {MAX_STEPS} steps.")


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _count(context, 1)
        yield item


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    size = len(value) if hasattr(value, "__len__") else 0
    _count(context, 1 + size // 1000)
    return value


def _bounded(value: Any) -> Any:
    return _of_size(value)


def _of_size(value: Any) -> Any:
    """A value that isn't too large."""
    if isinstance(value, str | list | tuple) and len(value) > MAX_TEXT:
        raise TemplateFault(f"A text of it has more than {MAX_TEXT} characters.")
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise TemplateFault("A number of it is too large.")
    return value


def _range(*arguments: int) -> range:
    """As Python's, of no more numbers than loops may go round."""
    numbers = range(*arguments)
    if len(numbers) > MAX_STEPS:
        raise TemplateFault(f"A range of it has more than {MAX_STEPS} numbers.")
    return numbers


def _date(instant: datetime | None, form: str = "%Y-%m-%d %H:%M") -> str:
    """A time in a form of ``strftime``, of which widths are refused: they have no bound."""
    if instant is None:
        return ""
    if not re.fullmatch(r"(?:[^%]|%-?[a-zA-Z%])*", form, re.DOTALL) or len(form) > 200:
        raise TemplateFault(f"{form[:200]!r} is no form of a date.")
    return instant.strftime(form)


def _join(items: Iterable[Any], between: str = "") -> str:
    texts = [str(item) for item in items]
    if sum(map(len, texts)) + len(between) * len(texts) > MAX_TEXT:
        raise TemplateFault(f"A text of it has more than {MAX_TEXT} characters.")
    return between.join(texts)


def _replace(value: Any, old: str, new: str) -> str:
    text = str(value)
    if len(text) + text.count(old) * len(new) > MAX_TEXT:
        raise TemplateFault(f"A text of it has more than {MAX_TEXT} characters.")
    return text.replace(old, new)


_SANDBOX = _Sandbox()
