"""The use cases, by subject: what can be done with a data directory.

The doors (command line, MCP, Sanctum) turn a call into one of these, and the result into a
document.
"""
