"""The commands for agents as an MCP server, on the official SDK: over stdio, or streamable HTTP.

It takes a second to import, and an extra to install, so only `promptyoself mcp` does.
"""
