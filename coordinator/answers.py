"""Answers kept for a moment, encoded: fifty open pages ask the same questions and cost as much as one.

Threads that ask what is being computed wait for it. A failed computation is not kept. Numbers that are not finite, as
histories of earlier versions may hold, become null.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json


@dataclass
class _Answer:
    lock: threading.Lock = field(default_factory=threading.Lock)
    body: bytes = b""
    good_until: float = 0.0


class Answers:
    """JSON bodies by question.

    >>> answers = Answers(seconds=2.0)
    >>> answers.get("two", lambda: {"answer": 2})
    b'{"answer":2}'
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._lock = threading.Lock()
        self._answers: dict[Hashable, _Answer] = {}

    def get(self, question: Hashable, compute: Callable[[], Any]) -> bytes:
        """The kept answer to `question`, or a new one from `compute`."""
        with self._lock:
            if question not in self._answers:
                self._forget_old()
            answer = self._answers.setdefault(question, _Answer())
        with answer.lock:
            if self._clock() >= answer.good_until:
                answer.body = to_json(compute(), inf_nan_mode="null")
                answer.good_until = self._clock() + self._seconds
            return answer.body

    def _forget_old(self) -> None:
        now = self._clock()
        for question, answer in list(self._answers.items()):
            if answer.good_until <= now and not answer.lock.locked():
                del self._answers[question]
