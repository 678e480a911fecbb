"""Broca at run time."""
