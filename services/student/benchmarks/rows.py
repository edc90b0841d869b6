"""Rows and tasks that the benchmarks run on: the public tasks beside the repository."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tutelage_student.task import Row, Task

DATA = Path(__file__).parents[4] / "shared" / "data"
EX_USAGE, EX_NO_INPUT = 64, 66


@dataclass(frozen=True)
class Benched:
    """A task with rows to train on and others to judge by."""

    task: Task
    train: list[Row]
    held_out: list[Row]


def _read(path: Path, first: int, count: int) -> list[Row]:
    if not path.is_file():
        sys.stderr.write(f"{path} is not there: the benchmarks need the public tasks beside it.\n")
        raise SystemExit(EX_NO_INPUT)
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for number, line in enumerate(lines) if number < first + count]
    return [
        Row(str(number), record["input"], record["output"])
        for number, record in enumerate(records[first:])
    ]


def short_rows(train: int, held_out: int) -> Benched:
    """TREC questions and their classes: about 17 tokens a row."""
    path = DATA / "trec" / "train.jsonl"
    labels = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    task = Task("Question: {input}\nThe answer is a", labels, max_answer_tokens=8)
    return Benched(task, _read(path, 0, train), _read(path, train, held_out))


def long_rows(train: int, held_out: int) -> Benched:
    """GSM8K problems and their worked answers: about 200 tokens a row."""
    path = DATA / "gsm8k" / "train.jsonl"
    task = Task("Question: {input}\nAnswer:", max_answer_tokens=128)
    return Benched(task, _read(path, 0, train), _read(path, train, held_out))
