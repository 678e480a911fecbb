"""promptyoself: a clock of their own for Letta AI agents."""

__all__ = ["__version__"]

__version__ = "0.1.0"
