"""The commands for agents as the tools of an MCP server, on the official SDK.

Names, parameters and descriptions are read off Click's own tree, and a call goes through the
command itself, in a thread, so that this door can't drift from the others. Nothing here knows what
a command does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import anyio
import mcp_types as types
import orjson
from mcp.server import Server, ServerRequestContext
from mcp.shared.exceptions import MCPError

from promptyoself import __version__
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import is_opaque_id
from promptyoself.core.times import shown
from promptyoself.doors.agent_parameters import Parameter, argument_name, commands_of, parameters
from promptyoself.doors.mcp.arguments import missing, to_argv, unknown
from promptyoself.doors.mcp.messages import arguments_of
from promptyoself.doors.mcp.prompts import PROMPTS
from promptyoself.doors.mcp.schemas import argument_schema, output_schema
from promptyoself.doors.mcp.shares import Shares
from promptyoself.doors.registry import AGENT_FACING, TOOLS, Effect
from promptyoself.doors.session import Caller
from promptyoself.doors.wording import Wording, tool_description
from promptyoself.service.delivery.loop import StopFlag

if TYPE_CHECKING:
    import click

Call = Callable[[Sequence[str], Caller], bytes]
"""Calls a command with these arguments, and returns the document that it would print. It ends soon
after the caller's flag was set, where it can."""

_HISTORY = 100  # events of a schedule that its resource has
_REPLIES = 20  # likewise, answers
_JSON = "application/json"

_INSTRUCTIONS = """\
promptyoself is a clock for agents: it sends a prompt to a Letta agent later, once or again and \
again, and keeps a log of all that was asked and sent.

To be prompted later, call `register` with the prompt and one of time ("in 45m", \
"2027-01-31T09:00"), cron ("0 9 * * MON-FRI") and every ("2h"); times are UTC unless tz names a \
zone. Keep the id of the answer: `show`, `modify`, `pause`, `resume` and `cancel` want it. `list` \
finds it again, and `history` tells whether a prompt was delivered.

Write a prompt for somebody who remembers nothing of this conversation. An error has a code, a \
message that says what was wrong with which value, and a hint what to do; nothing was changed then.\
"""


class _Tool(NamedTuple):
    """A command as a tool."""

    command: str
    listed: types.Tool  # as clients see it
    arguments: dict[str, Parameter]  # by their names here


class Door:
    """The tools, resources and prompts of ``server``, for MCP clients."""

    def __init__(
        self,
        group: click.Group,
        call: Call,
        agenda: Call,
        *,
        agent: str | None,
        only_agent: str | None = None,
        prefix: str = "",
        header: str | None = None,
        tools: Sequence[str] = AGENT_FACING,
    ) -> None:
        """Offer the commands of a group.

        Args:
            group: the commands.
            call: calls one of them.
            agenda: calls the agenda, which takes ``--agent-id`` and is no command of the group.
            agent: the agent of a call that names none.
            only_agent: the agent that every caller is pinned to.
            prefix: is put before the name of every tool.
            header: the header of HTTP that has to name the agent that calls.
            tools: the commands that are offered, of those that agents may call.
        """
        self._call, self._agenda, self._header = call, agenda, header
        self._only_agent, self._prefix = only_agent, prefix
        names = [name for name in AGENT_FACING if name in tools]
        self._wording = Wording(group, self._tool_name, names)
        offered = [
            self._tool(name, command, agent) for name, command in commands_of(group, names).items()
        ]
        self._names = {tool.command: tool.listed.name for tool in offered}
        self._others = {self._tool_name(name) for name in AGENT_FACING if name not in self._names}
        self._prompts = {
            name: template
            for name, template in PROMPTS.items()
            if self._names.keys() >= set(template.needs)
        }
        self._tools = {tool.listed.name: tool for tool in offered}
        self._shares: Shares | None = None
        self._running: set[StopFlag] = set()
        self.server: Server[Any] = Server(
            "promptyoself",
            version=__version__,
            title="promptyoself",
            description=" ".join((group.help or "").split()),
            instructions="\n\n".join(
                self._wording.description(text, None) for text in _INSTRUCTIONS.split("\n\n")
            ).strip(),
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
        )

    def stop(self, why: str) -> None:
        """Ask every call under way to come to an end."""
        for stop in list(self._running):
            stop.set(why)

    def _tool_name(self, command: str) -> str:
        return self._prefix + argument_name(command)

    def _tool(self, name: str, command: click.Command, agent: str | None) -> _Tool:
        words = self._wording
        arguments = {argument_name(parameter.name): parameter for parameter in parameters(command)}
        properties = {
            key: argument_schema(parameter, words.description(parameter.description, name))
            for key, parameter in arguments.items()
        }
        required = [key for key, parameter in arguments.items() if parameter.required]
        tool = TOOLS[name]
        # The agent is the one that calls, where that is known; or the one whose server this is; or
        # the one that the call names.
        if tool.acts_for_agent and self._header is None:
            if agent is None:
                required.append("agent_id")
            else:
                properties["agent_id"]["default"] = agent
        listed = types.Tool(
            name=self._tool_name(name),
            title=tool.title,
            description=words.description(tool_description(command), name),
            input_schema={"type": "object", "properties": properties, "required": required},
            output_schema=output_schema(name),
            annotations=types.ToolAnnotations(
                read_only_hint=tool.effect.read_only,
                destructive_hint=tool.effect is Effect.CHANGES,
                idempotent_hint=tool.idempotent or tool.effect.read_only,
                open_world_hint=tool.asks_letta,
            ),
        )
        return _Tool(name, listed, arguments)

    async def _list_tools(self, *_: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool.listed for tool in self._tools.values()])

    async def _call_tool(
        self, context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        tool = self._tools.get(params.name)
        if tool is None:
            is_known = params.name in self._others
            more = " The operator of promptyoself can offer it." if is_known else ""
            raise _refused(
                PromptyoselfError(
                    "unknown_tool",
                    f"There is no tool {shown(params.name)}.",
                    f"There are: {', '.join(self._tools)}.{more}",
                )
            )
        try:
            required = tool.listed.input_schema["required"]
            words = to_argv(tool.arguments, required, arguments_of(params))
            called = [tool.command, *words]
            answer = orjson.loads(await self._in_thread(self._call, called, self._caller(context)))
        except PromptyoselfError as error:
            answer = error.document()
        document = self._wording.document(answer, tool.command)
        return types.CallToolResult(
            content=[types.TextContent(text=orjson.dumps(document).decode())],
            structured_content=document,
            is_error=document["status"] == "error",
        )

    def _caller(self, context: ServerRequestContext[Any]) -> Caller:
        """Who calls. Over HTTP there is a request, and an address."""
        params = context.session.client_params
        client = None if params is None else params.client_info.name
        peer = getattr(context.request, "client", None)
        address = None if context.request is None else peer.host if peer else "unknown"
        return Caller("mcp", StopFlag(), self._agent(context), client, address)

    def _agent(self, context: ServerRequestContext[Any]) -> str | None:
        """The agent that calls, by the header that the server was given for that. A call without
        this header is refused: a caller could free itself of the pin by leaving it out."""
        if self._header is None:
            return None
        sent = [] if context.request is None else context.request.headers.getlist(self._header)
        if not any(sent):
            raise PromptyoselfError(
                "missing_agent_header",
                f"The call has no header {self._header}, which has to name the agent that calls.",
                "Let the client send it with each call.",
            )
        agent = ", ".join(sent)  # as HTTP has it; more than one is nobody
        if not is_opaque_id(agent):
            raise PromptyoselfError(
                "invalid_agent_id",
                f"The header {self._header} is {shown(agent)}, which is not the id of an agent.",
                "Let the client send the id of the one agent that calls.",
            )
        return agent

    async def _in_thread(self, call: Call, words: Sequence[str], caller: Caller) -> bytes:
        """Make a call in a thread, so that it doesn't hold up the others. If nobody waits for it,
        it is asked to end. What it has begun to write it writes whole."""
        if self._shares is None:  # it belongs to the event loop that is running
            self._shares = Shares()
        assert caller.stop is not None
        self._running.add(caller.stop)
        try:
            return await self._shares.run(
                partial(call, words, caller), caller.agent or self._only_agent, _effect(words)
            )
        except anyio.get_cancelled_exc_class():
            caller.stop.set("cancelled")
            raise
        finally:
            self._running.discard(caller.stop)

    async def _list_resources(self, *_: object) -> types.ListResourcesResult:
        agenda = types.Resource(
            uri="promptyoself://agenda",
            name="agenda",
            title="Today's agenda",
            description="What will be delivered today, the soonest first.",
            mime_type=_JSON,
        )
        return types.ListResourcesResult(resources=[agenda])

    async def _list_templates(self, *_: object) -> types.ListResourceTemplatesResult:
        history = types.ResourceTemplate(
            uri_template="promptyoself://schedules/{id}/history",
            name="history",
            title="A schedule's history",
            description=f"The latest {_HISTORY} events of a schedule, the oldest first.",
            mime_type=_JSON,
        )
        replies = types.ResourceTemplate(
            uri_template="promptyoself://schedules/{id}/replies",
            name="replies",
            title="The answers to a schedule's prompts",
            description=f"The latest {_REPLIES} answers to a schedule's prompts, the oldest first.",
            mime_type=_JSON,
        )
        agenda = types.ResourceTemplate(
            uri_template="promptyoself://agents/{agent_id}/agenda",
            name="agenda-of-agent",
            title="An agent's agenda for today",
            description="What will be delivered to one agent today, the soonest first.",
            mime_type=_JSON,
        )
        return types.ListResourceTemplatesResult(resource_templates=[history, replies, agenda])

    async def _read_resource(
        self, context: ServerRequestContext[Any], params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri = params.uri
        try:
            line = await self._resource(uri, self._caller(context))
        except PromptyoselfError as error:
            raise _refused(error) from None
        document = orjson.loads(line)
        if document["status"] == "error":
            document = self._wording.document(document, None)
            raise MCPError(types.INVALID_PARAMS, document["message"], document)
        content = types.TextResourceContents(uri=uri, mime_type=_JSON, text=line.decode())
        return types.ReadResourceResult(contents=[content])

    async def _resource(self, uri: str, caller: Caller) -> bytes:
        if uri == "promptyoself://agenda":
            return await self._in_thread(self._agenda, [], caller)
        if match := re.fullmatch("promptyoself://agents/([^/?#]+)/agenda", uri):
            words = [f"--agent-id={unquote(match[1])}"]
            return await self._in_thread(self._agenda, words, caller)
        if match := re.fullmatch("promptyoself://schedules/([^/?#]+)/(history|replies)", uri):
            most = _HISTORY if match[2] == "history" else _REPLIES
            words = [match[2], f"--id={unquote(match[1])}", f"--limit={most}"]
            return await self._in_thread(self._call, words, caller)
        raise PromptyoselfError(
            "unknown_resource",
            f"There is no resource {shown(uri)}.",
            "There are promptyoself://agenda, promptyoself://agents/AGENT/agenda, "
            "promptyoself://schedules/ID/history and promptyoself://schedules/ID/replies.",
        )

    async def _list_prompts(self, *_: object) -> types.ListPromptsResult:
        return types.ListPromptsResult(
            prompts=[template.prompt for template in self._prompts.values()]
        )

    async def _get_prompt(
        self, _: ServerRequestContext[Any], params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        if params.name not in self._prompts:
            raise _refused(
                PromptyoselfError(
                    "unknown_prompt",
                    f"There is no prompt {shown(params.name)}.",
                    f"There are: {', '.join(self._prompts)}.",
                )
            )
        prompt, _needs, text_of = self._prompts[params.name]
        given = params.arguments or {}
        names = {argument.name for argument in prompt.arguments or []}
        for name in given:
            if name not in names:
                raise _refused(unknown(name, names))
        for argument in prompt.arguments or []:
            if argument.required and not given.get(argument.name, "").strip():
                raise _refused(missing(argument.name))
        text = text_of(given, self._names)
        return types.GetPromptResult(
            description=prompt.description,
            messages=[types.PromptMessage(role="user", content=types.TextContent(text=text))],
        )


def _refused(error: PromptyoselfError) -> MCPError:
    """An error of the protocol, with our own document beside its message."""
    return MCPError(types.INVALID_PARAMS, error.message, error.document())


def _effect(words: Sequence[str]) -> Effect:
    """What a call does to the log. The agenda, which has no command, only reads."""
    if any(word.startswith("--at=") for word in words):
        return Effect.READS_LOG
    tool = TOOLS.get(words[0]) if words else None
    return tool.effect if tool else Effect.READS
