"""Keeping a data directory well: sealing, recovery, and looking for what is wrong."""
