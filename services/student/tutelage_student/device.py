"""The accelerator: one thread does all model work, one exclusive slot admits jobs to it."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from tutelage_student.errors import Code, StudentError

T = TypeVar("T")
MAX_WAITING = 64


class Slot:
    """Who works on the accelerator; at most one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder = ""

    @property
    def holder(self) -> str:
        """ "" when free, else e.g. "train <run id>"."""
        return self._holder

    def take(self, holder: str) -> None:
        """Takes the slot or raises RESOURCE_EXHAUSTED; never waits."""
        with self._lock:
            if self._holder:
                raise StudentError(
                    Code.RESOURCE_EXHAUSTED, f"slot: held by {self._holder}; try again later"
                )
            self._holder = holder

    def free(self) -> None:
        """Frees the slot."""
        with self._lock:
            self._holder = ""


class Device:
    """Runs model work one piece at a time, in one thread.

    A long job calls `serve_waiting` wherever the model may be used for something else; short work
    that came meanwhile is done there, in the same thread. So weights are never swapped under a
    step, and PyTorch keeps one team of threads.
    """

    def __init__(self) -> None:
        self.slot = Slot()
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._waiting = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Queues work for the thread; the future brings its result or exception."""
        if self._waiting.qsize() >= MAX_WAITING:
            raise StudentError(
                Code.RESOURCE_EXHAUSTED, f"slot: {MAX_WAITING} calls wait already; try again later"
            )
        future: Future[T] = Future()
        self._waiting.put((future, work))
        return future

    def serve_waiting(self) -> None:
        """Does the short work that waits now; called by a long job, in the thread."""
        for _ in range(self._waiting.qsize()):
            entry = self._waiting.get()
            if entry is None:
                self._waiting.put(None)
                return
            _do(*entry)

    def stop(self, timeout_seconds: float) -> None:
        """Ends the thread after the work at hand."""
        self._waiting.put(None)
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (entry := self._waiting.get()) is not None:
            _do(*entry)


def _do(future: "Future[Any]", work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
