"""The commands for agents as an MCP server, on the official SDK: over stdio, or streamable HTTP.

It takes a second to import, and an extra to install, so only `promptyoself mcp` does.
"""

from promptyoself.mcp_server.door import Ask, Door, Origin
from promptyoself.mcp_server.http import HTTP, MAX_BODY, MAX_SESSIONS, PATH, listen
from promptyoself.mcp_server.running import Transport, serve
from promptyoself.mcp_server.stdio import Stdio

__all__ = [
    "HTTP",
    "MAX_BODY",
    "MAX_SESSIONS",
    "PATH",
    "Ask",
    "Door",
    "Origin",
    "Stdio",
    "Transport",
    "listen",
    "serve",
]
