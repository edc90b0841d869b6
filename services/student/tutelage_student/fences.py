"""Fences: each takeover of a run raises its fence, and work with a lower one is refused."""

import threading
from collections import OrderedDict

from tutelage_student.errors import Code, StudentError

REMEMBERED_RUNS = 10_000


class Fences:
    """The highest fence seen of each recent run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._highest: OrderedDict[str, int] = OrderedDict()

    def admit(self, run_id: str, fence: int) -> None:
        """Raises FAILED_PRECONDITION if a higher fence of the run was seen, else remembers it."""
        with self._lock:
            highest = self._highest.get(run_id, fence)
            if fence < highest:
                raise StudentError(
                    Code.FAILED_PRECONDITION,
                    f"fence: fence_is_old, {fence} is below {highest} of run {run_id}; "
                    "another worker took the run over, stop this one",
                )
            self._highest[run_id] = fence
            self._highest.move_to_end(run_id)
            if len(self._highest) > REMEMBERED_RUNS:
                self._highest.popitem(last=False)
