"""Read the next item on a thread of its own while the present one is worked on, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from queue import Queue

Item = TypeVar("Item")

_WAIT_SECONDS = 0.1  # between checks whether the consumer is still there
_END = object()


def prefetch(items: Iterable[Item], take: Callable[[Item], Item] = lambda item: item) -> Iterator[Item]:
    """The items in order, each fetched on a thread of its own while the one before is in use; one waits, no more.

    Args:
        items: iterated on that thread, from the first to the last item.
        take: applied to each item there; a copy, where the producer may use the same memory again.

    What `items` raises is raised here in its turn, after the items before it. A generator that is closed early ends
    the thread, after the item that it is fetching.
    """
    from queue import Full, Queue  # costs a millisecond, and single rows need none

    waiting: Queue[Any] = Queue(maxsize=1)
    stopped = threading.Event()

    def hand_over(what: Any) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(what, timeout=_WAIT_SECONDS)
            except Full:
                continue
            return True
        return False

    def fetch() -> None:
        try:
            for item in items:
                if not hand_over((take(item), None)):
                    return
        except BaseException as error:  # raised again where it is waited for
            hand_over((_END, error))
        else:
            hand_over((_END, None))

    reader = threading.Thread(target=fetch, name="aeedge-reader", daemon=True)  # must not keep a program from ending
    reader.start()
    try:
        while True:
            item, error = _next(waiting, reader)
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()


def _next(waiting: Queue[Any], reader: threading.Thread) -> Any:
    from queue import Empty

    while True:
        try:
            return waiting.get(timeout=1.0)
        except Empty:
            if not reader.is_alive() and waiting.empty():  # a forked child has no reader
                raise RuntimeError("the thread that prefetches is gone; begin the iteration in this process") from None
