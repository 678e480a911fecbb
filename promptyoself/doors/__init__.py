"""How callers come in: the command line, Sanctum, MCP, and the servers beside the loop."""
