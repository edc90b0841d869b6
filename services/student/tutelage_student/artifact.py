"""Files that other services name: where they may lie, and rows read from them."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tutelage_student.errors import Code, StudentError, invalid
from tutelage_student.task import Message, Row

SPLITS = ("train", "dev", "test")


def local_path(uri: str, root: Path, field: str) -> Path:
    """The path of a file:// URI, which must lie below `root` once links are followed."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path:
        raise invalid(field, f"{uri!r} is not a local file URI", "use file:///absolute/path")
    path = Path(unquote(parts.path)).resolve()
    if not path.is_relative_to(root) or path == root:
        raise invalid(field, f"{uri!r} is outside the artifact root", f"use a path below {root}")
    return path


def read_rows(
    path: Path,
    sha256: str,
    split: str = "",
    row_ids: Collection[str] = (),
    exclude_root_row_ids: Collection[str] = (),
) -> list[Row]:
    """Rows of a JSON Lines artifact, in its order.

    Errors: NOT_FOUND, DATA_LOSS where the digest differs, INVALID_ARGUMENT naming the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StudentError(
            Code.NOT_FOUND, f"rows.uri: cannot read {path.name} ({error.strerror}); publish it"
        ) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256.lower():
        raise StudentError(
            Code.DATA_LOSS,
            f"rows.sha256: the artifact's digest is {actual}, not {sha256}; publish it again",
        )
    wanted, excluded = set(row_ids), set(exclude_root_row_ids)
    rows: list[Row] = []
    seen: set[str] = set()
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        record = _record(line, number)
        row = _row(record, number)
        if row.id in seen:
            raise invalid("rows", f"line {number}: id {row.id!r} repeats", "give each row one id")
        seen.add(row.id)
        if (
            (not split or record.get("split") == split)
            and (not wanted or row.id in wanted)
            and row.id not in excluded
            and record.get("root_row_id", "") not in excluded
        ):
            rows.append(row)
    if missing := wanted - seen:
        raise invalid("rows.row_ids", f"{min(missing)!r} is not in the artifact", "name its rows")
    return rows


def _record(line: bytes, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise invalid("rows", f"line {number}: no JSON ({error})", "one object a line") from error
    if not isinstance(record, dict):
        raise invalid("rows", f"line {number}: not an object", "one object a line")
    return record


def _row(record: dict[str, Any], number: int) -> Row:
    for name in ("id", "input", "output", "root_row_id"):
        if not isinstance(record.get(name, ""), str):
            raise invalid("rows", f"line {number}: {name} is not a text", "write it as a string")
    if not record.get("id"):
        raise invalid("rows", f"line {number}: no id", "give each row one id")
    if record.get("split", SPLITS[0]) not in SPLITS:
        raise invalid("rows", f"line {number}: split {record['split']!r}", f"use one of {SPLITS}")
    turns = record.get("messages") or []
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict)
        and isinstance(turn.get("role"), str)
        and isinstance(turn.get("content"), str)
        for turn in turns
    ):
        raise invalid(
            "rows", f"line {number}: messages", "a list of objects with texts role and content"
        )
    return make_row(
        record["id"],
        record.get("input", ""),
        record.get("output", ""),
        [Message(turn["role"], turn["content"]) for turn in turns],
        f"line {number}",
    )


def make_row(row_id: str, text: str, output: str, turns: list[Message], where: str) -> Row:
    """A checked row; `where` names it in errors."""
    if bool(text) == bool(turns):
        raise invalid("rows", f"{where}: both or neither of input and messages", "give exactly one")
    for turn in turns:
        if turn.role not in ("system", "user", "assistant"):
            raise invalid("rows", f"{where}: role {turn.role!r}", "use system, user or assistant")
    if turns and turns[-1].role != "user":
        raise invalid(
            "rows", f"{where}: the last message is not the user's", "put the answer into output"
        )
    return Row(row_id, text, output, tuple(turns))
