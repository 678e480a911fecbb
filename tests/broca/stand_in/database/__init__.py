"""Broca's database."""
