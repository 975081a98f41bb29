"""Read the next item on a thread of its own while the present one is worked on, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from aeedge.runtime.threadpool import cannot_start

if TYPE_CHECKING:
    from queue import SimpleQueue

Item = TypeVar("Item")

_LOOK_SECONDS = 1.0  # between looks whether there is a reader
_END = object()


def prefetch(items: Iterable[Item], take: Callable[[Item], Item] = lambda item: item) -> Iterator[Item]:
    """The items in order, each fetched on a thread of its own while the one before is in use; one waits, no more.

    Args:
        items: iterated on that thread, from the first to the last item.
        take: applied to each item there; a copy, where the producer may use the same memory again.

    What `items` raises is raised here in its turn, after the items before it. A generator that is closed early ends
    the thread, after the item that it is fetching.
    """
    from queue import SimpleQueue  # costs a millisecond, and single rows need none

    # Nothing here is left locked or half done where a signal handler raises: each queue's step is one.
    ready: SimpleQueue[Any] = SimpleQueue()
    wanted: SimpleQueue[None] = SimpleQueue()
    wanted.put(None)
    stopped = False

    def hand_over(item: Any, error: BaseException | None) -> None:
        wanted.get()
        ready.put((item, error))

    def fetch() -> None:
        try:
            for item in items:
                hand_over(take(item), None)
                if stopped:
                    return
        except BaseException as error:  # raised again where it is waited for
            hand_over(_END, error)
        else:
            hand_over(_END, None)

    reader = threading.Thread(target=fetch, name="aeedge-reader", daemon=True)  # must not keep a program from ending
    try:
        if not _started(reader):
            yield from items
            return
        while True:
            item, failure = _next(ready, reader)
            wanted.put(None)
            if failure is not None:
                raise failure
            if item is _END:
                return
            yield item
    finally:
        stopped = True
        wanted.put(None)


def _started(reader: threading.Thread) -> bool:
    try:
        reader.start()
    except RuntimeError as error:
        if not cannot_start(error):
            raise
        return False
    return True


def _next(ready: SimpleQueue[Any], reader: threading.Thread) -> Any:
    from queue import Empty

    while True:
        try:
            return ready.get(timeout=_LOOK_SECONDS)
        except Empty:
            if not reader.is_alive() and ready.empty():  # a forked child has no reader
                raise RuntimeError("the thread that prefetches is gone; begin the iteration in this process") from None
