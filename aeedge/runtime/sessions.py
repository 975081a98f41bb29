"""The sessions of one variant: which exist, when they are opened, and what becomes of them when a process forks.

There are up to two of each graph: one that runs on the calling thread, and one on an intra-op pool, which shares every
operator among its threads. Each is opened when a method first needs it.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from aeedge.errors import AeedgeError
from aeedge.runtime.fastpath import not_open
from aeedge.runtime.methods import NAMES
from aeedge.runtime.threadpool import cannot_start, try_to_start

if TYPE_CHECKING:
    from aeedge.runtime.fastpath import FastCall
    from aeedge.runtime.methods import Method

    Makers = dict[str, Callable[[], Method]]
    Build = Callable[[int], Makers]
    """Opens the encoder on a pool of this many threads (1 for none); gives what makes each method on it."""

_EXIT_SECONDS = 2.0  # the longest that an interpreter that ends waits for calls under way


class SessionPool:
    """Methods of a variant, on the calling thread and on an intra-op pool.

    Args:
        build: see `Build`. It must not refer to this object, which would be a cycle.
        threads: of the pool; 1 for none.

    Attributes:
        fast: the fast path by method; `not_open` as long as its sessions are not open.
        busy: threads with calls under way that are not on bound arrays.
        alive: empty once the sessions that are open now may no longer be used (a fork, `close`, the interpreter's end).
    """

    def __init__(self, build: Build, threads: int) -> None:
        self._build, self.threads = build, threads
        self._lock = threading.RLock()  # a signal handler may call while sessions are opened
        self._parked = self._closed = False
        self._makers: dict[bool, Makers] = {}
        self._methods: dict[bool, dict[str, Method]] = {False: {}, True: {}}
        self.fast: dict[str, FastCall] = dict.fromkeys(NAMES, not_open)
        self.busy: set[int] = set()
        self.alive = [True]
        _living.add(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the methods that there are graphs for."""
        return tuple(self._made_by(pooled=False))

    @property
    def has_pool(self) -> bool:
        """Whether there is, or may be, a pool."""
        return self.threads > 1

    def method(self, name: str, *, pooled: bool = False) -> Method:
        """A method by name, whose sessions are opened if need be.

        Raises:
            AeedgeError: the model was closed.
            BundleError: a graph cannot be opened.
        """
        if self._parked:
            _park()
        found = self._methods[pooled].get(name)
        if found is None:
            with self._lock:
                found = self._methods[pooled].get(name)
                if found is None:
                    found = self._methods[pooled][name] = self._made_by(pooled=pooled)[name]()
                    self.fast[name] = not_open  # to be made anew, with this one
                    self._let_go_if_closed()
        return found

    def opened(self, name: str, *, pooled: bool) -> Method | None:
        """A method, if its sessions are open."""
        return self._methods[pooled].get(name)

    def _made_by(self, *, pooled: bool) -> Makers:
        with self._lock:
            if pooled not in self._makers:
                self._makers[pooled] = self._built_on_pool() if pooled else self._build(1)
                self._let_go_if_closed()
            return self._makers.get(pooled) or self._build(1)  # which raises after `close`

    def _built_on_pool(self) -> Makers:
        """With a pool; without, and with a warning, where its threads cannot be started."""
        try:
            try_to_start(self.threads - 1)
            return self._build(self.threads)
        except RuntimeError as error:
            if not cannot_start(error):
                raise
        return self._build(1)

    def refresh(self, name: str, fast: FastCall) -> None:
        """Set the fast path of a method, unless its sessions may no longer be used."""
        with self._lock:
            if not (self._parked or self._closed):
                self.fast[name] = fast

    def after_fork(self, *, reopen: bool) -> None:
        """In a forked child: leave what misses its threads, or may be in the middle of something, and start anew."""
        self._lock = threading.RLock()
        self.busy.clear()
        if not self._methods[True] and not reopen:
            return
        for pooled in (True, False) if reopen else (True,):
            _leave((self._methods[pooled], self._makers.pop(pooled, None), dict(self.fast)))
            self._methods[pooled] = {}
        self._retire()

    def is_busy(self) -> bool:
        """Whether calls of other threads are under way."""
        found = [method for methods in self._methods.values() for method in list(methods.values())]
        return bool(self.busy - {threading.get_ident()}) or any(method.arrays.busy for method in found)

    def park(self) -> None:
        """The interpreter ends: stop daemon threads where they call."""
        locked = self._lock.acquire(timeout=_EXIT_SECONDS)
        self._parked = True
        self._retire()
        if locked:
            self._lock.release()

    def close(self) -> None:
        """Let go of the sessions; there is no way back."""
        self._closed, self._build = True, _closed
        self._let_go_if_closed()

    def _let_go_if_closed(self) -> None:
        """Close, also what another thread was opening when `close` was called: asked after each opening."""
        if self._closed:
            self._retire()
            self._makers, self._methods = {}, {False: {}, True: {}}

    def _retire(self) -> None:
        """Take the fast paths away."""
        self.fast.update(dict.fromkeys(self.fast, not_open))
        self.alive.clear()
        self.alive = [True]


def _closed(threads: int) -> Makers:
    raise AeedgeError("the model was closed; load it again")


_living: weakref.WeakSet[SessionPool] = weakref.WeakSet()
_others_ran = False  # when the process forked


def _leave(what: object) -> None:
    """Never free it: onnxruntime would wait for threads that do not exist in this process, also at its end."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(what))


def _before_fork() -> None:
    global _others_ran
    _others_ran = threading.active_count() > 1


def _after_fork_in_child() -> None:
    for sessions in list(_living):
        sessions.after_fork(reopen=_others_ran)


def _park() -> None:
    """Keep a daemon thread from running on while the interpreter ends: inside onnxruntime that aborts the process."""
    while threading.current_thread() is not threading.main_thread():
        time.sleep(60)


def _before_exit() -> None:
    """Park daemon threads, the only ones left then, and wait for what they are doing."""
    living = list(_living)
    for sessions in living:
        sessions.park()
    until = time.monotonic() + _EXIT_SECONDS
    while any(sessions.is_busy() for sessions in living) and time.monotonic() < until:
        time.sleep(0.001)


atexit.register(_before_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
