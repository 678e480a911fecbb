"""A checkout of Broca has a file of this name. The stand-in is run by host.py instead."""
