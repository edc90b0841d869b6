"""Rows and tasks that the benchmarks run on.

The public tasks beside the repository where they are; else examples of our own, which are fewer;
in the small form sentences made here, which a model of two layers learns.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from tutelage_student.task import Row, Task

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
EXAMPLES = ROOT / "examples"


@dataclass(frozen=True)
class Benched:
    """A task with rows to train on and others to judge by. source: where the rows are from."""

    task: Task
    train: list[Row]
    held_out: list[Row]
    source: str


def short_rows(train: int, held_out: int) -> Benched:
    """TREC questions and their classes: about 17 tokens a row. Else messages to a support desk."""
    path = DATA / "trec" / "train.jsonl"
    if path.is_file():
        labels = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
        task = Task("Question: {input}\nThe answer is a", labels, max_answer_tokens=8)
        return _split(task, _read(path), train, held_out, "trec")
    folder = EXAMPLES / "support-intents"
    given = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    labels = tuple(label["name"] for label in given["labels"])
    task = Task(given["prompt_template"], labels, max_answer_tokens=8)
    rows = [row for name in ("seed", "dev", "test") for row in _read(folder / f"{name}.jsonl")]
    return _split(task, rows, train, held_out, "examples/support-intents")


def long_rows(train: int, held_out: int) -> Benched:
    """GSM8K problems and their worked answers: about 200 tokens a row. Else our own, shorter."""
    path = DATA / "gsm8k" / "train.jsonl"
    task = Task("Question: {input}\nAnswer:", max_answer_tokens=128)
    if path.is_file():
        return _split(task, _read(path), train, held_out, "gsm8k")
    rows = _read(EXAMPLES / "kinds" / "math.jsonl")
    return _split(task, rows, train, held_out, "examples/kinds/math")


def made_rows(train: int, held_out: int, *, labelled: bool) -> Benched:
    """Sentences of which one word decides the label, or an answer of several words."""
    answers = {"good": "positive", "great": "positive", "bad": "negative", "awful": "negative"}
    texts = {"positive": "yes green", "negative": "no red"}
    draw = random.Random(1)
    rows = []
    for index in range(train + held_out):
        word = list(answers)[index % len(answers)]
        subject = draw.choice(("film", "plot", "cast", "long novel", "tall tower"))
        filler = draw.choice(("", "the film and ", "where is the ", "who wrote "))
        label = answers[word]
        text = f"{filler}the {subject} was {word}"
        rows.append(Row(str(index), text, label if labelled else texts[label]))
    task = (
        Task("Text: {input}\nSentiment:", ("negative", "positive"), max_answer_tokens=8)
        if labelled
        else Task("Text: {input}\nAnswer:", max_answer_tokens=8)
    )
    return _split(task, rows, train, held_out, "made")


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [
        Row(f"{path.stem}-{number}", record["input"], record["output"])
        for number, record in enumerate(records)
    ]


def _split(task: Task, rows: list[Row], train: int, held_out: int, source: str) -> Benched:
    """The first rows to train on, the next to judge by; both in proportion where they are few."""
    share = min(1.0, len(rows) / (train + held_out))
    cut = round(train * share)
    return Benched(task, rows[:cut], rows[cut : cut + round(held_out * share)], source)
