"""Writing files that a crash may not tear: JSON in one form, and forced to the disk."""

import json
import os
from pathlib import Path


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


def sync_tree(folder: Path) -> None:
    """The same for all that lies in a folder, and the folder."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
