"""A background thread that keeps a few results ready, in order, and stops when told."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Call ``produce`` ahead of need, at most ``depth`` results ahead; its error is raised by ``get``.

    After ``stop`` no call of ``produce`` is running and none will follow.
    """

    def __init__(self, produce: Callable[[], T], depth: int) -> None:
        self._produce, self._depth = produce, depth
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="data-prefetch", daemon=True)
        self._thread.start()

    def get(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error or self._stopping)
            if self._ready:
                result = self._ready.popleft()
                self._changed.notify_all()
                return result
            if self._error:
                raise self._error
            raise RuntimeError("the prefetcher was stopped")

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or len(self._ready) < self._depth)
                if self._stopping:
                    return
            try:
                result = self._produce()
            except BaseException as error:  # handed to the consumer, which decides
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._ready.append(result)
                self._changed.notify_all()
