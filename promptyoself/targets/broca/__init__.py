"""Broca, as its queue has it: prompts go in there, and the agent's answers reach people on their
platforms. Only a process on Broca's machine can do that, and only the loop inside Broca does."""

from promptyoself.targets.broca.fitness import Misfit, misfits
from promptyoself.targets.broca.queue import BrocaQueue

__all__ = ["BrocaQueue", "Misfit", "misfits"]
