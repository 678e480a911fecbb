"""Keeping a data directory in order: sealing, recovery, and checks."""
