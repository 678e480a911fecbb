"""What follows from a name alone: the same content gives the same id, the same slot the same otid
and the same delay."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import orjson

_AGENT = re.compile(r"agent-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.I).fullmatch
_SCHEDULE = re.compile(r"sch_[0-9a-f]+", re.ASCII | re.I).fullmatch

NOTICE_PREFIX = "ntc_"
"""What the ids of notices for destinations begin with. Where an event names a notice, anything else
is a schedule, or the code that says why there is none."""

# Made once with uuid4. It must never change: it is part of every otid ever sent.
_OTID_NAMESPACE = bytes.fromhex("145d04ac509e44beb1f528ceadb5c634")


def content_hash(content: Mapping[str, Any], salt: int = 0) -> str:
    """SHA-256, in hex, of the canonical content: JSON with sorted keys, no spaces, in UTF-8, of
    the fields that aren't ``None``, and of ``salt`` where it isn't 0."""
    fields = {name: value for name, value in content.items() if value is not None}
    if salt:
        fields["salt"] = salt
    return sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()


def schedule_id(content: Mapping[str, Any], salt: int = 0) -> str:
    """``sch_`` and the first 8 digits of :func:`content_hash`."""
    return f"sch_{content_hash(content, salt)[:8]}"


def desire_id(content: Mapping[str, Any], salt: int = 0) -> str:
    """``des_`` and the first 8 digits of the :func:`content_hash` of its agent, its text and the
    instant at which it was recorded."""
    return f"des_{content_hash(content, salt)[:8]}"


def is_opaque_id(text: str) -> bool:
    """Whether it has the form of an agent's or a conversation's id, which are Letta's business: 1
    to 200 characters, without white space or control characters."""
    # Of all white space, only the blank is printable.
    return 1 <= len(text) <= 200 and text.isprintable() and " " not in text


def is_agent_id(text: str) -> bool:
    """Whether it has the form that Letta gives the ids of agents: ``agent-`` and a UUID."""
    return _AGENT(text) is not None


def may_name_schedule(text: str) -> bool:
    """Whether it could be taken for a schedule's id, or for the beginning of one."""
    return _SCHEDULE(text) is not None


def slot_otid(id_: str, slot: str) -> str:
    """The UUID, version 5, that marks a slot's message in Letta's history: of ``<id>|<due>``."""
    from uuid import UUID, uuid5

    return str(uuid5(UUID(bytes=_OTID_NAMESPACE), f"{id_}|{slot}"))


def notice_id(to: str, kind: str, id_: str, about: str) -> str:
    """``ntc_`` and 16 hexadecimal digits: what tells a notice from all others, however often it is
    sent. ``about`` is the slot that it tells of, or the end of the time that it tells of."""
    digest = sha256(f"{to}|{kind}|{id_}|{about}".encode()).hexdigest()
    return f"{NOTICE_PREFIX}{digest[:16]}"


def jittered(id_: str, slot: datetime, jitter: int | None) -> datetime:
    """When a slot's delivery may begin: up to ``jitter`` seconds after it, always the same for the
    same slot, so that two loops agree."""
    if not jitter:
        return slot
    digest = sha256(f"{id_}|{slot.isoformat()}".encode()).digest()
    try:
        return slot + timedelta(seconds=jitter * int.from_bytes(digest[:4]) / 2**32)
    except OverflowError:  # the calendar's end
        return slot
