"""A process that holds a Broca: its manager of plugins and its queue, of a real checkout or of the
stand-in, with an agent that answers at once. Run in the checkout: ``python host.py``.

Each prompt that reaches the agent is a line in ``arrived``. Two words in a prompt have it behave:
``slow`` takes two seconds, and ``timeout`` is the error of a turn that goes on.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

sys.path.insert(0, os.getcwd())


def _without_letta() -> None:
    """Put a client of Letta in the place of Broca's own, which attaches blocks to nobody."""
    nothing = SimpleNamespace(attach=lambda *_, **__: None, detach=lambda *_, **__: None)
    client = SimpleNamespace(agents=SimpleNamespace(blocks=nothing))
    module = ModuleType("runtime.core.letta_client")
    module.get_letta_client = lambda: client  # type: ignore[attr-defined]
    sys.modules["runtime.core.letta_client"] = module


def _turn_that_goes_on() -> Exception:
    try:
        from common.exceptions import AgentTurnTimeoutInFlight
    except ImportError:  # the stand-in takes this for it
        return TimeoutError()
    error: Exception = AgentTurnTimeoutInFlight("It goes on.")
    return error


async def _answer(text: str, sender_id: str | None = None) -> str:
    with open("arrived", "a", encoding="utf-8") as file:
        file.write(json.dumps(text) + "\n")
    if "slow" in text:
        await asyncio.sleep(2)
    if "timeout" in text:
        raise _turn_that_goes_on()
    return f"echo: {text}"


async def _main() -> None:
    from database.operations.shared import initialize_database
    from runtime.core.plugin import PluginManager
    from runtime.core.queue import QueueProcessor

    settings = json.loads(Path("settings.json").read_text())
    await initialize_database()
    manager = PluginManager()
    await manager.discover_plugins(config=settings.get("plugins", {}))
    await manager.start()
    processor = QueueProcessor(message_processor=_answer, plugin_manager=manager)
    processor.set_message_mode(settings.get("message_mode", "live"))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    task = asyncio.create_task(processor.start())
    print("up", flush=True)
    await stopped.wait()
    await processor.stop()
    await asyncio.wait([task], timeout=5)
    await manager.stop()
    if "database.pool" in sys.modules:  # its threads would keep the process
        await sys.modules["database.pool"].get_pool().close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    _without_letta()
    asyncio.run(_main())
