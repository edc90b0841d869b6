"""Writing files that a crash may not tear: JSON in one form, and forced to the disk."""

import errno
import json
import os
from pathlib import Path

from tutelage_student.errors import Code, StudentError

_DISK_FULL = (
    "disk_full: no space is left on the student's disk; free some, then run this again",
    {errno.ENOSPC, errno.EDQUOT},
    "No space left on device",
)
_DISK_READ_ONLY = (
    "disk_read_only: the student's disk can only be read; have it mounted for writing",
    {errno.EROFS},
    "Read-only file system",
)


def disk_fault(error: BaseException | None) -> StudentError | None:
    """A disk that cannot be written, by name; None for any other failure."""
    while error is not None:
        for message, numbers, text in (_DISK_FULL, _DISK_READ_ONLY):
            # safetensors reports the system's error as text only.
            if getattr(error, "errno", None) in numbers or text in str(error):
                return StudentError(Code.FAILED_PRECONDITION, message)
        error = error.__cause__ or error.__context__
    return None


def json_text(value: object) -> str:
    """JSON with its keys in order, so that equal values are equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def sync(path: Path) -> None:
    """Forces a file's bytes, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Makes a folder and what is missing above it, all of them there after a power cut, too."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def sync_tree(folder: Path) -> None:
    """The same for all that lies in a folder, and the folder."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
