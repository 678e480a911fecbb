"""The commands for agents as an MCP server, on the official SDK: over stdio, or streamable HTTP.

It takes a second to import, and an extra to install, so only `promptyoself mcp` does.
"""

from promptyoself.doors.mcp.http import HTTP, MAX_SESSIONS, PATH, listen
from promptyoself.doors.mcp.lifecycle import Transport, serve
from promptyoself.doors.mcp.messages import MAX_BODY
from promptyoself.doors.mcp.stdio import Stdio
from promptyoself.doors.mcp.tools import Call, Door, Origin

__all__ = [
    "HTTP",
    "MAX_BODY",
    "MAX_SESSIONS",
    "PATH",
    "Call",
    "Door",
    "Origin",
    "Stdio",
    "Transport",
    "listen",
    "serve",
]
