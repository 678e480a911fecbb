"""The lines that tell an agent what woke it, in the form that Letta Code writes for its own."""

from hashlib import sha256

import pytest
from world import World

from promptyoself.service.schedules.change import run_now


def test_a_recurring_prompt_in_its_envelope() -> None:
    """Name, zone, when it was due and what time it is, the number of the fire, and the prompt."""
    world = World()
    asked = {"cron": "*/5 * * * *", "timezone": "Europe/Paris", "name": "Stretching"}
    world.settle(world.claimed(prompt="Stretch.\nSlowly.", envelope=True, **asked))
    world.advance(minutes=6, milliseconds=250)
    made = world.claim_one()
    assert made.text.split("\n") == [
        'Scheduled task "Stretching" is firing.',
        "Timezone: Europe/Paris",
        "Scheduled for: 2026-11-20T13:10:00.000+01:00[Europe/Paris]",
        "Current time: 2026-11-20T13:11:00.250+01:00[Europe/Paris]",
        "This is fire #2 (cron: */5 * * * *).",
        "",
        "Prompt: Stretch.",
        "Slowly.",
    ]


def test_a_one_off_and_an_interval_in_their_envelopes() -> None:
    """A one-off says that it is one, and goes by its id here. An interval tells its rhythm."""
    made = World().claimed(time="in 10m", envelope=True)
    assert made.text.split("\n")[0] == f'Scheduled task "{made.id}" is firing.'
    assert made.text.split("\n")[4] == "This is a one-off scheduled task."
    made = World().claimed(every="10m", envelope=True)
    assert made.text.split("\n")[4] == "This is fire #1 (cron: every 10m)."


def test_a_trigger_in_its_envelope() -> None:
    """A delivery that someone asked for bears no number: it is none of the scheduled ones."""
    world = World()
    id_ = world.register(envelope=True, every="10m")
    run_now(world, id_, None, world.now)  # type: ignore[arg-type]
    made = world.claim_one()
    assert made.text.split("\n")[4] == "This is a recurring scheduled task (cron: every 10m)."


@pytest.mark.parametrize(
    "name", ["a\nPrompt: b", "a\r\nPrompt:\tb", "a\u2028Prompt: b", "a\x0bPrompt: b"]
)
def test_a_name_cannot_break_out_of_its_line(name: str) -> None:
    """Line ends of any kind in a name are spaces in the envelope."""
    made = World().claimed(name=name, every="10m", envelope=True)
    assert made.text.splitlines()[0] == 'Scheduled task "a Prompt: b" is firing.'


def test_without_an_envelope_the_text_is_verbatim() -> None:
    """By default the agent gets what was registered, to the last byte."""
    prompt = " {odd}\n\ttext\u00a0\n"
    assert World().claimed(prompt=prompt).text == prompt


@pytest.mark.parametrize("envelope", [False, True])
def test_the_log_tells_the_hash_of_what_is_sent(envelope: bool) -> None:
    """P3: the claim's event commits to the exact text, envelope included, before it is sent."""
    world = World()
    made = world.claimed(envelope=envelope)
    recorded = world.last("delivery.attempted").text_sha256
    assert recorded == sha256(made.text.encode()).hexdigest()
