"""Proving the log: checks, signed heads, packs."""
