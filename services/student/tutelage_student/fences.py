"""Fences: each takeover of a run raises its fence, and work with a lower one is refused."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tutelage_student.errors import Code, StudentError
from tutelage_student.files import make_folder

REMEMBERED_RUNS = 10_000


class Fences:
    """The highest fence seen of each recent run.

    What this process saw it remembers. Another student, or this one before it was started again,
    is seen by its folder: files of an attempt lie below `<run>/<fence>/`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._highest: OrderedDict[str, int] = OrderedDict()

    def admit(self, run_id: str, fence: int, output: Path | None = None) -> None:
        """Raises FAILED_PRECONDITION if a higher fence of the run was seen, else remembers it.

        output: where the work's files go; None where it has none, or when looking at the disk would
        cost too much.
        """
        on_disk = _highest_folder(output, fence) if output else fence
        with self._lock:
            highest = max(self._highest.get(run_id, fence), on_disk)
            self._highest[run_id] = highest
            self._highest.move_to_end(run_id)
            if len(self._highest) > REMEMBERED_RUNS:
                self._highest.popitem(last=False)
        if fence < highest:
            raise StudentError(
                Code.FAILED_PRECONDITION,
                f"fence: fence_is_old, {fence} is below {highest} of run {run_id}; "
                "another worker took the run over, stop this one",
            )

    @contextmanager
    def claimed(self, run_id: str, fence: int, output: Path) -> Iterator[None]:
        """Admits work with files, and shows its fence to every student on the same disk meanwhile.

        A folder that is empty at the end goes.
        """
        self.admit(run_id, fence, output)
        folder = _attempt_folder(output, fence)
        if folder is None:
            yield
            return
        make_folder(folder)
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()


def _attempt_folder(output: Path, fence: int) -> Path | None:
    return next((path for path in (output, *output.parents) if path.name == str(fence)), None)


def _highest_folder(output: Path, fence: int) -> int:
    folder = _attempt_folder(output, fence)
    if folder is None or not folder.parent.is_dir():
        return fence
    return max(
        [fence, *(int(path.name) for path in folder.parent.iterdir() if path.name.isdigit())]
    )
