"""OS locks on files, which the kernel drops when their process dies: no lock is ever stale."""

import os
import sys
import time
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path
from threading import TIMEOUT_MAX, Lock, RLock
from weakref import WeakSet

import orjson

from promptyoself.core.disk import read_ours
from promptyoself.core.errors import PromptyoselfError

_LEAST_POLL_SECONDS = 0.00005  # only the process that is next polls, so it may do so often
_POLL_SECONDS = 0.001
_RECHECK_SECONDS = 0.25
_TURN_SECONDS = 0.001  # handing over costs as much as an append or two
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_HOLDER_BYTES = 512
_TAG_BYTES = 32


class ExclusiveLock:
    """A lock among all processes and threads; re-entrant within a thread; turns are in order.

    It is ``flock`` itself, since an append should cost little more than its ``fsync``, and a
    library for locks costs as much again. Its file stays open. Each time it is checked whether it
    still has its name, so that two processes can't have a lock each after somebody has removed the
    file or replaced the folder.

    Turns are in order because there is a second lock, for the process that is next. A process takes
    that one first, and gives it back once it has the lock itself. A process that has just released
    the lock finds that another one is next, and lines up; the kernel serves that line in order. A
    process may take the lock again at once only for a millisecond after its turn began. The threads
    of a process do the same with two locks of their own.
    """

    def __init__(
        self, path: Path, timeout: float, prepare: Callable[[], None], state: str = "locked"
    ) -> None:
        """``timeout`` is how many seconds to wait before giving up; ``prepare`` makes the folder
        where there is none; ``state`` says what the log is meanwhile."""
        self._name = str(path)
        self._timeout = timeout
        self._prepare = prepare
        self._state = state
        self._thread = RLock()
        self._next_thread = Lock()
        self._depth = 0
        self._descriptor = -1
        self._file = (0, 0)  # which one is open there
        self._next = -1
        self._until = 0.0  # as long as we may take it again out of turn
        self._place: _Place | None = None  # one that was left before it was reached
        self._tag = b""
        _locks.add(self)

    def __del__(self) -> None:
        self._close()

    @contextmanager
    def held(self, timeout: float | None = None) -> Iterator[None]:
        """Hold the lock; ``timeout`` as given to the constructor unless stated.

        Raises:
            PromptyoselfError: ``lock_timeout``, naming the process that holds it.
            OSError: the lock's file can't be made.
        """
        self.acquire(timeout)
        try:
            yield
        finally:
            self.release()

    def acquire(self, limit: float | None = None) -> None:
        """Take it, or take it once more, within ``limit`` seconds, or those that the constructor
        was given. Raises as :meth:`held`."""
        if limit is None:
            limit = self._timeout
        deadline = time.monotonic() + limit
        thread = self._thread
        free = thread.acquire(blocking=False)
        if free and self._next_thread.locked() and not (self._depth or self._may_go_on()):
            thread.release()
            free = False
        if not (free or self._wait_for_threads(deadline)):
            raise self._timed_out(limit)
        if self._depth:  # ours already, so nothing was waited for
            self._depth += 1
            return
        try:
            again = self._may_go_on() and self._try()
            if not again:
                if not self._is_next():
                    self._line_up(limit, deadline)
                elif not self._try():
                    self._wait(limit, deadline)
                self._until = time.monotonic() + _TURN_SECONDS
            if not self._tag or os.pread(self._descriptor, _TAG_BYTES, 0) != self._tag:
                self._sign()
            if not again:  # no sooner: the process that has just let go would come in between
                self._let_next()
            self._depth = 1
        except BaseException:
            self._depth = 0
            self._let_next()
            if self._descriptor >= 0:
                flock(self._descriptor, LOCK_UN)
            thread.release()
            raise
        finally:
            if not free:
                self._next_thread.release()

    def release(self, *_: object) -> None:
        """Give it back, as often as it was taken."""
        if not self._depth:
            return  # a child process, in which nothing is held that its parent holds
        self._depth -= 1
        if not self._depth:
            flock(self._descriptor, LOCK_UN)
        self._thread.release()

    __enter__, __exit__ = acquire, release

    def forget(self) -> None:
        """In a child process: what the parent holds is not ours, nor may we keep it from anyone
        when he lets go."""
        self._close()
        if self._place is not None:
            self._place.forget()
        self._place = None
        self._thread, self._next_thread = RLock(), Lock()
        self._depth, self._tag = 0, b""

    def _wait_for_threads(self, deadline: float) -> bool:
        """Wait for the other threads of this process; be the next one still if that succeeds."""
        if not self._next_thread.acquire(timeout=_left(deadline)):
            return False
        got = False
        try:
            got = self._thread.acquire(timeout=_left(deadline))
        finally:
            if not got:
                self._next_thread.release()
        return got

    def _may_go_on(self) -> bool:
        return time.monotonic() < self._until

    def _is_next(self) -> bool:
        """Be next, if nobody else is."""
        if self._descriptor < 0:
            self._open()
        try:
            flock(self._next, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _line_up(self, limit: float, deadline: float) -> None:
        """Wait to be next, and then for the lock. Now and then see whether it is free all the
        same: the process that is next may have been stopped, or the files replaced."""
        if limit <= 0:  # even if the lock is free at this instant: the turn is another's
            raise self._timed_out(limit)
        if self._place is None or not self._place.wanted_again():
            self._place = _Place(self._name + ".queue")
        while not self._place.reached(min(_left(deadline), _RECHECK_SECONDS)):
            if self._try():
                return
            if deadline <= time.monotonic():
                raise self._timed_out(limit)
        if not self._try():
            self._wait(limit, deadline)

    def _let_next(self) -> None:
        """Be next no more, nor in the line."""
        if self._descriptor >= 0:
            flock(self._next, LOCK_UN)
        if self._place is not None and self._place.leave():
            self._place = None

    def _wait(self, limit: float, deadline: float) -> None:
        began = time.monotonic()
        while True:
            now = time.monotonic()
            if deadline <= now:
                raise self._timed_out(limit)
            pause = min(max((now - began) / 16, _LEAST_POLL_SECONDS), _POLL_SECONDS)
            time.sleep(min(pause, deadline - now))
            if self._try():
                return

    def _try(self) -> bool:
        """Lock the file that has the name now, if nobody else has."""
        while True:
            if self._descriptor < 0:
                self._open()
            locked = True
            try:
                flock(self._descriptor, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                locked = False
            try:
                named = os.stat(self._name)
                if (named.st_dev, named.st_ino) == self._file:
                    return locked
            except FileNotFoundError:
                pass
            self._close()

    def _open(self) -> None:
        try:
            descriptor = os.open(self._name, _FLAGS, 0o600)
        except FileNotFoundError:
            self._prepare()
            descriptor = os.open(self._name, _FLAGS, 0o600)
        try:
            self._next = os.open(self._name + ".queue", _FLAGS, 0o600)
        except BaseException:
            os.close(descriptor)
            raise
        opened = os.fstat(descriptor)
        self._descriptor, self._file = descriptor, (opened.st_dev, opened.st_ino)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            os.close(self._next)

    def _sign(self) -> None:
        """Write down who holds the lock, for the error of a process that waits in vain. It needn't
        be done again while the lock's own file has this process's tag, for then no other process
        has held it since."""
        command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:2]])[:100]
        holder_info = {
            "pid": os.getpid(),
            "command": command.encode("ascii", "backslashreplace").decode(),
        }
        tag = os.urandom(_TAG_BYTES // 2).hex().encode()
        with suppress(OSError):
            descriptor = os.open(self._name + ".holder", _FLAGS, 0o600)
            try:
                # Of one length and in place: cutting the file first would cost more than an append.
                os.pwrite(descriptor, orjson.dumps(holder_info).ljust(_HOLDER_BYTES), 0)
            finally:
                os.close(descriptor)
            os.pwrite(self._descriptor, tag, 0)
            self._tag = tag

    def _timed_out(self, limit: float) -> PromptyoselfError:
        try:
            holder_info = orjson.loads(read_ours(Path(self._name + ".holder")))
            holder = f"process {holder_info['pid']} ({holder_info['command'].strip()})"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            holder_info, holder = {}, "another process"
        return PromptyoselfError(
            "lock_timeout",
            f"The log is {self._state} by {holder}, for longer than {limit:g} seconds.",
            "Nothing was changed. Try again; if that process hangs, end it: its lock goes with it.",
            holder=holder_info,
        )


class _Place:
    """A place in the line of those who want to be next, which the kernel serves in order.

    ``flock`` waits without a limit, so a thread waits in it. If nobody wants the place any more
    by the time it is reached, that thread gives it up.
    """

    def __init__(self, name: str) -> None:
        self._descriptor = -1
        self._descriptor = os.open(name, _FLAGS, 0o600)
        self._guard = Lock()
        self._wanted = True
        self._over = False  # the thread waits no more
        self._signal = Lock()
        self._signal.acquire()
        try:
            start_new_thread(self._stand, ())
        except RuntimeError:  # no thread is to be had: don't wait in line
            self._arrive()

    def reached(self, seconds: float) -> bool:
        """Wait for that long at most until we are next."""
        return self._signal.acquire(timeout=seconds)

    def leave(self) -> bool:
        """Want it no more; whether it was given up at once, so that it can't be wanted again."""
        with self._guard:
            self._wanted = False
            if self._over:
                self._give_up()
            return self._over

    def wanted_again(self) -> bool:
        """Want a place that was left; ``False`` where it has been given up since."""
        with self._guard:
            self._wanted = not self._over
            return self._wanted

    def __del__(self) -> None:
        self._give_up()

    def forget(self) -> None:
        """In a child process, which has no such thread."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _stand(self) -> None:
        with suppress(OSError):
            flock(self._descriptor, LOCK_EX)
        self._arrive()

    def _arrive(self) -> None:
        with self._guard:
            self._over = True
            if self._wanted:
                self._signal.release()
            else:
                self._give_up()

    def _give_up(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                flock(descriptor, LOCK_UN)  # a child process may have a copy
            os.close(descriptor)


def _left(deadline: float) -> float:
    return min(max(deadline - time.monotonic(), 0), TIMEOUT_MAX)


_locks: WeakSet[ExclusiveLock] = WeakSet()


def _forget_all() -> None:
    for lock in list(_locks):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)
