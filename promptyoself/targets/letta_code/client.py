"""Letta Code's App Server as a target. Only otids are sent with messages, and no message ids of its
own: the server would queue such a message, and send it to the agent again after it was killed.

Relied upon here, as measured with Letta Code 0.32.13 and 0.34.12:

- A message with an otid alone is refused while its conversation is at work, and is stored at the
  beginning of its turn. Nothing sends it again.
- After a turn was broken off, such messages are refused though the conversation is idle, until one
  with a message id has come.
- ``accepted`` says nothing of a message's being stored: a turn can fail before that. Only the
  history tells. Where that was summed up, a run does: the server names one only after it has stored
  the message.
- The server's ids of runs begin at ``local-run-1`` whenever it is started, and a turn has a run for
  each step of the model. So the id that a turn has here is made of the otid.
- Older servers queue a message that comes while a turn is being broken off, and may leave it there
  until they are asked to go on (``resume_queue``).
- ``sync`` succeeds for agents and conversations that don't exist, and changes nothing. The server
  tells every change from then on.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from datetime import datetime, timedelta

from promptyoself.events.target_names import DEFAULT, NEW
from promptyoself.targets.api import (
    HISTORY_GAP,
    Agent,
    DeliveryError,
    Found,
    Message,
    Reply,
    Run,
    RunFailure,
    Sent,
    Traits,
)
from promptyoself.targets.letta_code.anchor_process import AnchorProcess
from promptyoself.targets.letta_code.connection import Connection
from promptyoself.targets.letta_code.failures import (
    Failures,
    FrameTooLong,
    require_address,
    require_token,
    turn_failure,
)
from promptyoself.targets.letta_code.history import trace, turn_since_summary
from promptyoself.targets.letta_code.questions import Questions, Row
from promptyoself.targets.letta_code.watch import Turn, Watch
from promptyoself.targets.turn_messages import instant_of, turn_after

_MOST_TURNS = 2000  # that are remembered
_TURN = "turn-"
_AGAIN = ((0.1, "otid"), (0.4, "otid"), (1.0, "otid"), (0.0, "client_message_id"))
"""Seconds before each further try where an idle conversation refuses a message, and the id that the
message then has. The refusal may pass: the server tells that a turn is over a moment before it
takes the next message. Only a conversation whose turn was broken off goes on refusing."""

_MESSAGES_OF_A_TURN = 20  # that are asked for at once: few turns have more

_FRESH = 5.0  # seconds in which what was told of a conversation need not be asked for again


class LettaCode:
    """One App Server. For what its methods promise, see :class:`~promptyoself.targets.api.Target`.

    Args:
        url: ``ws(s)://host[:port][/path]``; the path is ``/ws`` if there is none.
        token: of an App Server that wants one, sent as a bearer token.
        call_timeout: seconds that one request may take, and all of those of one sending together.
        anchored: whether a second process keeps the turns going if this one dies.

    Raises:
        PromptyoselfError: ``invalid_base_url`` or ``invalid_token``.
    """

    traits = Traits(
        "letta-code",
        run_proves_arrival=False,
        lists_runs=False,
        busy_code="letta_code_busy",
        clock_margin=timedelta(minutes=1),
        tells_ends=True,
    )

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        call_timeout: float = 30.0,
        anchored: bool = True,
    ) -> None:
        self._address = require_address(url)
        self._token = require_token(token)
        self._timeout = call_timeout
        self._failures = Failures(self._address.shown, bool(self._token))
        self._anchor = AnchorProcess(self._address, self._token, call_timeout) if anchored else None
        self._opening = threading.Lock()
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._turns: OrderedDict[str, tuple[Connection, Watch, Turn]] = OrderedDict()

    # -- what a delivery calls

    def active_runs(self, message: Message) -> list[Run]:
        questions = self._questions()
        conversation = message.conversation
        if conversation == NEW:
            made = questions.made_for(message)
            if not made:
                return []
            conversation = made[0]
        questions.sync(message.agent_id, conversation, fresh=_FRESH)

        def at_work(watch: Watch) -> list[Run]:
            if watch.idle:
                return []
            is_queued = any(item.get("client_message_id") == message.otid for item in watch.queue)
            # Nobody else sends into a conversation that was made for a message.
            is_own = is_queued or message.conversation == NEW
            otid = message.otid if is_own else watch.otid
            return [
                Run(
                    run_id=_TURN + otid if otid else watch.active_run or "unnamed",
                    agent_id=message.agent_id,
                    status="waiting" if watch.asks else "running",
                    otid=otid,
                    created_at=None,
                    error=None,
                )
            ]

        return questions.connection.looking(message.agent_id, conversation, at_work)

    def all_active_runs(self) -> list[Run] | None:
        return None

    def ended_runs(self, most: int) -> list[Run]:
        del most
        return []

    def send(self, message: Message) -> Sent:
        deadline = time.monotonic() + self._timeout
        connection = self._connected()
        questions = Questions(
            connection, self._failures, self._timeout, failing="retry", deadline=deadline
        )
        if self._anchor is not None:
            self._anchor.start()
        connection.list_models(questions.left())
        conversation = _conversation(questions, message)
        self._require_idle(questions, message.agent_id, conversation)
        is_own = message.conversation == NEW
        is_kept = self._anchor is None or self._anchor.keep(message.agent_id, conversation)
        # If its turn is cut off, a conversation of its own is blocked for nobody.
        if not is_kept and not is_own:
            raise self._failures.no_anchor(conversation)
        refusal = self._put(questions, message, conversation, "otid")
        for pause, id_field in _AGAIN:
            if refusal is None:
                break
            time.sleep(pause)
            self._require_idle(questions, message.agent_id, conversation, refusal)
            refusal = self._put(questions, message, conversation, id_field)
        if refusal is not None:
            raise self._failures.busy(conversation, "the App Server refuses it", refusal)
        return Sent(_TURN + message.otid, conversation if is_own else None)

    def run(self, run_id: str) -> Run:
        with self._lock:
            connection, watch, turn = self._turns.get(run_id, (None, None, None))
        if connection is None or watch is None or turn is None:
            raise self._run_not_found()
        where = (watch.agent_id, watch.conversation_id)
        questions = Questions(connection, self._failures, self._timeout)
        now = time.monotonic()
        if turn.is_silent(now) and connection.alive:
            questions.sync(*where)
        elif turn.is_held_up(now, loop=watch.loop) and connection.alive:
            questions.resume_queue(*where)
            turn.queued_at = now
        now = time.monotonic()
        status, error, is_over = connection.looking(
            *where,
            lambda watch: (turn.status(now, asks=watch.asks), turn.error, turn.is_over(now)),
        )
        if not is_over and (not connection.alive or turn.stage == "offered"):
            raise self._run_not_found()
        return Run(run_id, watch.agent_id, status, turn.otid, None, error)

    def failure(self, run: Run) -> RunFailure:
        return turn_failure(run)

    def find(self, message: Message, since: datetime) -> Found | None:
        try:
            return self._find(message, since)
        except DeliveryError as error:
            if error.code == "conversation_not_found":
                error.kind = "retry"  # another store may be served there for a while
            raise

    def _find(self, message: Message, since: datetime) -> Found | None:
        questions = self._questions()
        sent_to = self._sent_to(message)
        if sent_to is not None:  # so that not all of the agent's conversations are looked through
            is_own = message.conversation == NEW
            try:
                found, _ = self._look(questions, message, sent_to, since, is_own=is_own)
            except DeliveryError as error:
                if error.code != "conversation_not_found" or not is_own:
                    raise
                questions.agent(message.agent_id)  # raises where another store is served
                if self._was_stored(message, sent_to):
                    return Found(sent_to, None, None, sent_to)
                raise self._failures.conversation_lost(sent_to) from None
            if found is not None:
                return found
        made = questions.made_for(message)
        places = made if message.conversation in (NEW, *made) else [*made, message.conversation]
        is_gap = False
        for place in places:
            found, gap = self._look(questions, message, place, since, is_own=place in made)
            if found is not None:
                return found
            is_gap = is_gap or gap
        if is_gap:
            raise self._failures.summed_up()
        if not places:  # so that nothing was asked for which the agent had to exist
            questions.agent(message.agent_id)
        return None

    def reply(self, message: Message, since: datetime, run_id: str | None) -> Reply | None:
        del run_id  # it is ours, and tells nothing to another process
        try:
            return self._reply(self._connected(), _MESSAGES_OF_A_TURN, message, since)
        except FrameTooLong:
            pass
        # Over a connection of its own, since a frame that is too long ends it for all.
        connection = Connection(self._address, self._token, self._failures, self._timeout)
        try:
            return self._reply(connection, 1, message, since)
        except FrameTooLong:
            raise DeliveryError(
                "permanent",
                "reply_too_large",
                f"An answer of {message.agent_id} is too long, and wasn't read.",
            ) from None
        finally:
            connection.close()

    def agents(self) -> list[Agent]:
        # It doesn't tell when they were made.
        return [_agent(row) for row in reversed(self._questions().agents())]

    def agent(self, agent_id: str) -> Agent | None:
        try:
            return _agent(self._questions().agent(agent_id))
        except DeliveryError as error:
            if error.code == "agent_not_found":
                return None
            raise

    def health(self) -> str:
        return self._connected().version

    def check(self) -> None:
        self._connected()

    def close(self) -> None:
        with self._opening:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if self._anchor is not None:
            self._anchor.close()

    # -- how it is called

    def _connected(self) -> Connection:
        with self._opening:
            if self._connection is None or not self._connection.claim():
                self._connection = Connection(
                    self._address, self._token, self._failures, self._timeout
                )
            return self._connection

    def _questions(self) -> Questions:
        return Questions(self._connected(), self._failures, self._timeout)

    def _reply(
        self, connection: Connection, at_once: int, message: Message, since: datetime
    ) -> Reply | None:
        """The answer, read with this number of messages at a time."""
        questions = Questions(connection, self._failures, self._timeout, messages_at_once=at_once)
        place = (message.agent_id, message.conversation)
        try:
            turn, is_followed = turn_after(questions.messages(*place, since), message.otid)
        except DeliveryError as error:
            if error.code != HISTORY_GAP or message.conversation not in questions.made_for(message):
                raise
            if not self._is_idle(questions, *place, fresh=0.0):
                return None
            summed_up = turn_since_summary(questions.messages(*place, since))
            if summed_up is None:
                raise
            return summed_up.reply
        if is_followed:
            return turn.reply
        fresh = _FRESH if turn.ends_in_words else 0.0
        if not self._is_idle(questions, *place, fresh=fresh):
            return None
        if not turn.ends_in_words:  # it may have gone on since
            turn, _ = turn_after(questions.messages(*place, since), message.otid)
        return turn.reply

    def _is_idle(
        self, questions: Questions, agent_id: str, conversation_id: str, *, fresh: float = _FRESH
    ) -> bool:
        questions.sync(agent_id, conversation_id, fresh=fresh)
        return questions.connection.looking(agent_id, conversation_id, lambda watch: watch.idle)

    def _require_idle(
        self, questions: Questions, agent_id: str, conversation_id: str, refusal: str | None = None
    ) -> None:
        """Raises ``busy`` unless a message may be sent there now."""
        questions.sync(agent_id, conversation_id, fresh=0.0 if refusal else _FRESH)

        def reason(watch: Watch) -> str | None:
            if watch.asks:
                return "its turn waits for an approval of a tool"
            return None if watch.idle else "it is at work on another one"

        why = questions.connection.looking(agent_id, conversation_id, reason)
        if why is not None:
            raise self._failures.busy(conversation_id, why, refusal)

    def _put(
        self, questions: Questions, message: Message, conversation_id: str, id_field: str
    ) -> str | None:
        """Hand the message over; what the server says, if it refuses that."""
        left = questions.left()
        connection = questions.connection
        request_id = connection.next_id()

        def offer(watch: Watch) -> tuple[Connection, Watch, Turn]:
            return connection, watch, watch.offer(message.otid, request_id, time.monotonic())

        # Before it is sent, since the answer may be followed at once by the turn's end.
        turn = connection.looking(message.agent_id, conversation_id, offer)
        with self._lock:
            self._turns[_TURN + message.otid] = turn
            self._turns.move_to_end(_TURN + message.otid)
            if len(self._turns) > _MOST_TURNS:
                self._turns.popitem(last=False)
        answer = connection.ask(
            "input",
            "sending",
            left,
            request_id=request_id,
            answer_kind="input_accepted",
            runtime={"agent_id": message.agent_id, "conversation_id": conversation_id},
            payload={
                "kind": "create_message",
                "exclude_interactive_tools": True,  # nobody is there to answer a question
                "messages": [{"role": "user", "content": message.text, id_field: message.otid}],
            },
        )
        if answer.get("accepted") is True:
            return None
        return str(answer.get("error") or "refused")

    def _look(
        self, questions: Questions, message: Message, place: str, since: datetime, *, is_own: bool
    ) -> tuple[Found | None, bool]:
        """The message in that conversation, or whether it may be in what was summed up there.
        ``is_own``: the conversation was made for it."""
        messages = questions.messages(message.agent_id, place, since)
        found = trace(messages, message.otid, since)
        message_id = found.message_id
        if message_id is None and (is_own or self._was_stored(message, place)):
            # Nothing else can have been summed up there, or else the turn over it has begun.
            message_id = found.summary_id
        if message_id is None:
            return None, found.summary_id is not None
        answered = found.answered
        if not answered and not self._is_idle(questions, message.agent_id, place):
            answered = None  # the agent may be at work on it
        where = place if is_own else None
        return Found(message_id, None, found.date, where, answered), False

    def _was_stored(self, message: Message, place: str) -> bool:
        """Whether a run over it has begun there, which this client was told."""
        with self._lock:
            known = self._turns.get(_TURN + message.otid)
        if known is None:
            return False
        _, watch, turn = known
        return watch.conversation_id == place and turn.was_stored

    def _sent_to(self, message: Message) -> str | None:
        """Where this client has sent it, if that is where it is to go."""
        with self._lock:
            _, watch, _ = self._turns.get(_TURN + message.otid, (None, None, None))
        if watch is None or message.conversation not in (NEW, watch.conversation_id):
            return None
        return watch.conversation_id

    def _run_not_found(self) -> DeliveryError:
        return DeliveryError(
            "permanent",
            "run_not_found",
            f"The connection to {self._address.shown} was lost during the turn, or another process "
            "has begun it. So the agent's history is looked through.",
        )


def _conversation(questions: Questions, message: Message) -> str:
    """Where the message goes. The conversation is made for it, if need be."""
    if message.conversation == NEW:
        made = questions.made_for(message)
        return made[0] if made else questions.make_for(message)
    if message.conversation == DEFAULT:
        questions.agent(message.agent_id)
        return DEFAULT
    owner = questions.conversation(message.conversation).get("agent_id")
    if owner != message.agent_id:
        # The server would take it, and go on with that conversation as another agent.
        raise DeliveryError(
            "permanent",
            "conversation_of_another_agent",
            f"Conversation {message.conversation} belongs to {owner}, not to {message.agent_id}.",
            "Cancel the schedule and register it with the agent that has the conversation.",
        )
    return message.conversation


def _agent(row: Row) -> Agent:
    model = row.get("model")
    return Agent(
        id=row["id"],
        name=str(row.get("name") or ""),
        model=model if isinstance(model, str) else None,
        created_at=instant_of(row, "created_at"),
        last_run_at=instant_of(row, "last_run_completion"),
    )
