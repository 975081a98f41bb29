"""The sessions of one variant: which exist, when they are opened, and what becomes of them when a process forks.

There are up to two of each graph: one that runs on the calling thread, and one with every operator shared among the
threads of a pool, for batches too small to be cut into blocks, which is made when it is needed.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aeedge.errors import AeedgeError
from aeedge.runtime.fastpath import Borders, plain
from aeedge.runtime.methods import NAMES, Pair, Step

if TYPE_CHECKING:
    from aeedge.bundle.manifest import Manifest
    from aeedge.runtime.fastpath import Plain
    from aeedge.runtime.session import Session

    Open = Callable[[str, int], Session]
    """Opens the graph of a role, "encoder" or "decoder", on a pool of so many threads."""

_EXIT_SECONDS = 2.0  # the longest that an interpreter that ends waits for calls under way


class Engine:
    """Steps of a variant, on the calling thread (`alone`) and on a pool (`shared`).

    `short` holds the short ways by method, and `borders` how many rows go which way there (see short.py); `busy` is as
    long as calls are under way that are not on bound arrays.

    Args:
        manifest: of the bundle.
        open_session: see `Open`.
        has_decoder: whether there is one.
        threads: of the pool; 1 for none.
        telling_latents: what the bundle says of this variant (see telling.py).
    """

    def __init__(
        self, manifest: Manifest, open_session: Open, has_decoder: bool, threads: int, telling_latents: int
    ) -> None:
        self._manifest, self._open, self._has_decoder, self._threads = manifest, open_session, has_decoder, threads
        self._telling = telling_latents
        self._lock = threading.RLock()  # a signal handler may call while sessions are opened
        self._parked = self._over = False
        self.busy: list[None] = []
        self._alone: dict[str, Step] | None = None
        self._shared: dict[str, Step] | None = None
        self.short: dict[str, Plain] = dict.fromkeys(NAMES, _not_now)
        self.borders = {name: Borders() for name in NAMES}
        self._one_on_pool = False
        self.alone()
        _living.add(self)

    @property
    def has_pool(self) -> bool:
        """Whether there is, or may be, a pool."""
        return self._threads > 1

    def alone(self) -> dict[str, Step]:
        """The steps on the calling thread."""
        if self._parked:
            _park()
        steps = self._alone
        if steps is None:
            with self._lock:
                steps = self._alone = self._alone or self._steps(1)
                self._shorten()
                self._let_go_if_over()
        return steps

    def single_on_pool(self, wanted: bool) -> None:
        """Whether single rows go to the pool too, from now on."""
        if wanted != self._one_on_pool:
            self._one_on_pool = wanted
            if wanted:
                self.shared()
            self._shorten()

    def shared(self) -> dict[str, Step]:
        """The steps on the pool, which is made by the first call."""
        steps = self._shared
        if steps is None:
            with self._lock:
                steps = self._shared = self._shared or self._steps(self._threads)
                self._shorten()
                self._let_go_if_over()
        return steps

    def _shorten(self) -> None:
        """Make the short ways of the steps that there are."""
        shared = self._shared or {}
        for name, step in (self._alone or {}).items():
            alone, pool = step.short, shared[name].short if shared else None
            one = pool if pool and self._one_on_pool else alone
            self.short[name] = plain(alone, pool, one, self.borders[name], self.busy)

    def _no_short_way(self) -> None:
        self.short.update(dict.fromkeys(self.short, _not_now))

    def _steps(self, threads: int) -> dict[str, Step]:
        opened: list[Session] = []
        lock, open_session = threading.RLock(), self._open  # not self, which would be a cycle

        def decoder() -> Session:
            if not opened:
                with lock:
                    if not opened:
                        opened.append(open_session("decoder", threads))
            return opened[0]

        encoder = open_session("encoder", threads)
        pair = Pair(self._manifest, encoder, decoder if self._has_decoder else None, self._telling)
        return pair.steps()

    def after_fork(self, *, reopen: bool) -> None:
        """In a forked child: leave what misses its threads, or may be in the middle of something, and start anew."""
        self._lock = threading.RLock()
        if self._shared is None and not reopen:
            return
        _leave((dict(self.short), self._shared))
        self._shared = None
        self._no_short_way()  # it may be the pool's
        if reopen:
            _leave(self._alone)
            self._alone = None
        self._shorten()

    def is_busy(self) -> bool:
        """Whether calls are under way."""
        steps = [step for found in (self._alone, self._shared) if found for step in found.values()]
        return bool(self.busy) or any(step.short.busy for step in steps)

    def park(self) -> None:
        """The interpreter ends: stop daemon threads where they call."""
        self._parked = True
        self._no_short_way()

    def close(self) -> None:
        """Let go of the sessions; there is no way back."""
        self._over, self._open = True, _closed
        self._let_go_if_over()

    def _let_go_if_over(self) -> None:
        """Close, also what another thread was opening when `close` was called: asked after each opening."""
        if self._over:
            self._no_short_way()
            self._alone = self._shared = None


def _not_now(x: Any) -> None:
    """The short way where there is none: the long way opens sessions again, or says why it cannot."""


def _closed(role: str, threads: int) -> Session:
    raise AeedgeError("the model was closed; load it again")


_living: weakref.WeakSet[Engine] = weakref.WeakSet()
_others_ran = False  # when the process forked


def _leave(what: object) -> None:
    """Never free it: onnxruntime would wait for threads that do not exist in this process, also at its end."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(what))


def _before_fork() -> None:
    global _others_ran
    _others_ran = threading.active_count() > 1


def _after_fork_in_child() -> None:
    for engine in list(_living):
        engine.after_fork(reopen=_others_ran)


def _park() -> None:
    """Keep a daemon thread from running on while the interpreter ends: inside onnxruntime that aborts the process."""
    while threading.current_thread() is not threading.main_thread():
        time.sleep(60)


def _before_exit() -> None:
    """Park daemon threads, the only ones left then, and wait for what they are doing."""
    engines = list(_living)
    for engine in engines:
        engine.park()
    until = time.monotonic() + _EXIT_SECONDS
    while any(engine.is_busy() for engine in engines) and time.monotonic() < until:
        time.sleep(0.001)


atexit.register(_before_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
