"""letta-client by itself, as a script would use it: ``peer_letta_client.py PROMPTS SEATS``.

As many threads as seats send one prompt after another, each to an agent that has none under way,
and ask every :data:`POLL` seconds whether its run is over. Nothing is kept or looked up, so nothing
could be told after a crash. Prints the seconds that this takes as JSON; imports come before.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from letta_client import Letta

POLL = 0.05  # seconds; the least that a delivery of ours waits before it asks for its run


def main() -> None:
    """Send and wait; print the figure."""
    prompts, seats = (int(argument) for argument in sys.argv[1:3])
    letta = Letta(base_url=os.environ["LETTA_BASE_URL"], max_retries=0)
    free: SimpleQueue[str] = SimpleQueue()
    for agent in letta.agents.list(limit=1000):
        free.put(agent.id)

    def deliver(number: int) -> bool:
        agent_id = free.get()
        text = f"Look at the inbox, and answer what can't wait ({number})."
        message = {"role": "user", "content": text}
        run = letta.agents.messages.create_async(agent_id, extra_body={"messages": [message]})
        while run.status not in ("completed", "failed", "cancelled"):
            time.sleep(POLL)
            run = letta.runs.retrieve(run.id)
        free.put(agent_id)
        return run.status == "completed"

    began = time.perf_counter()
    with ThreadPoolExecutor(seats) as threads:
        delivered = sum(threads.map(deliver, range(prompts)))
    print(json.dumps({"seconds": time.perf_counter() - began, "delivered": delivered}))


if __name__ == "__main__":
    main()
