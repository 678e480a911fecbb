"""What ``smoke.sh`` runs inside the MCP server's container: a client, who registers a prompt for an
agent that doesn't exist, and prints the schedule's id."""

from __future__ import annotations

import asyncio
import os
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

# As other containers see it, whose name for it the server must allow; it has that name itself.
URL = sys.argv[1] if len(sys.argv) > 1 else "http://mcp:8765/mcp"
NOBODY = "agent-00000000-0000-4000-8000-000000000000"


async def main() -> None:
    """Knock without the token, then come in with it."""
    async with httpx2.AsyncClient() as stranger:
        answer = await stranger.post(URL, json={})
        assert answer.status_code == 401, f"without the token: {answer.status_code}"
    headers = {"Authorization": f"Bearer {os.environ['PROMPTYOSELF_MCP_TOKEN']}"}
    async with httpx2.AsyncClient(headers=headers) as web:
        transport = streamable_http_client(URL, http_client=web)
        async with Client(transport) as client:
            asked = {"agent_id": NOBODY, "prompt": "Is anybody there?", "time": "in 2s"}
            answer = await client.call_tool("register", asked)
            assert not answer.is_error, answer.structured_content
            print(answer.structured_content["id"])


asyncio.run(main())
