"""A stand-in Letta server for trying and testing: agents that echo, and faults on demand.

It serves the routes that a delivery uses, with the status codes and JSON shapes of a real Letta
0.16.8 server. Its oddities are here too, since a client must get along with them:

- A message enters the history, with its otid, only when the run's first answer is there.
- A turn that fails later leaves its first step: a call of a tool, and what that returned. In a
  conversation such a run is ``completed``.
- A page of an agent's messages is oldest first, even where ``order=desc`` chose the newest.
- Agents page by ``after``; runs and messages by ``before``.
- Of two runs at once in one agent the one that ends last forgets the other's messages: they stay in
  the history, but not in the agent's context (``message_ids``). ``overlaps`` counts such sends.
- Nothing is deduplicated: the same otid sent twice is there twice.
- While an approval is pending, an asynchronous send is taken, and its *run* fails.

Faults are queued in process (:meth:`Sandbox.fault`) or over HTTP, by any process: ``POST`` or
``DELETE /_sandbox/faults``; ``GET /_sandbox/state`` tells what has arrived. State lives in memory:
it outlasts :meth:`Sandbox.stop` and :meth:`Sandbox.start`, not the object.
"""

from promptyoself.sandbox.agents import SandboxMessage
from promptyoself.sandbox.faults import FAULTS, PARAMS, ROUTES
from promptyoself.sandbox.server import Sandbox, serve_forever

__all__ = ["FAULTS", "PARAMS", "ROUTES", "Sandbox", "SandboxMessage", "serve_forever"]
