"""Ends a process whose work hangs, so that whoever supervises it starts it anew.

Only the student itself can tell a long step from one that never ends: it sees each micro-batch. The
timer runs in a thread of the interpreter's C code and needs no lock of Python's, so that it also
ends a process that hangs in a library's call. Before it does, it writes what every thread was
doing to stderr.
"""

import faulthandler
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Setting the timer anew starts a thread (0.1 ms), so it is not done for every micro-batch.
SETTLED_SECONDS = 1.0


class Watchdog:
    """Ends the process after `limit_seconds` without a beat while it watches; 0 never does."""

    def __init__(self, limit_seconds: float) -> None:
        self.limit_seconds = limit_seconds
        self._watching = False
        self._set_at = 0.0

    @contextmanager
    def watching(self, watched: bool = True) -> Iterator[None]:
        """Watches inside the block, or with False does not; what held before holds after."""
        before = self._watching
        self._set(watched)
        try:
            yield
        finally:
            self._set(before)

    def beat(self) -> None:
        """Says that the work goes on; called by the one thread that works."""
        if self._watching and time.monotonic() - self._set_at >= self._settled_seconds:
            self._set(True)

    @property
    def _settled_seconds(self) -> float:
        return min(SETTLED_SECONDS, self.limit_seconds / 4)

    def _set(self, watched: bool) -> None:
        self._watching = watched and self.limit_seconds > 0
        if self._watching:
            faulthandler.dump_traceback_later(self.limit_seconds, exit=True)
            self._set_at = time.monotonic()
        else:
            faulthandler.cancel_dump_traceback_later()
