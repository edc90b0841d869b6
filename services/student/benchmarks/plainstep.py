"""One step of the other side as a script of its own: python -m benchmarks.plainstep JOB.json.

Loads what it needs, does its step, writes its result and ends, as a user's own scripts do; nothing
outlives it.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer

from benchmarks import plain
from tutelage_student.examples import Example
from tutelage_student.recipe import Recipe
from tutelage_student.task import Encoder, Row, Task


@dataclass(frozen=True)
class Job:
    """What the script is told.

    base: folder of the base weights. adapters: to be written (one, by a training) or to answer
    with, in turn. dtype: of the weights that answer; number_format: of the training, one of
    `plain.FORMATS`.
    """

    kind: str
    base: str
    adapters: list[str]
    task: Task
    rows: list[Row]
    answers: str
    recipe: Recipe
    number_format: str
    dtype: str
    seed: int
    threads: int

    def write(self, path: Path) -> None:
        """As the script reads it."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def _read(path: Path) -> Job:
    given = json.loads(path.read_text(encoding="utf-8"))
    task = Task(**{**given["task"], "labels": tuple(given["task"]["labels"])})
    rows = [Row(row["id"], row["input"], row["output"]) for row in given["rows"]]
    return Job(**{**given, "task": task, "rows": rows, "recipe": Recipe(**given["recipe"])})


def _train(job: Job, encoder: Encoder) -> None:
    examples = []
    for row in job.rows:
        completion = encoder.completion(row)
        examples.append(Example((*encoder.prompt(row), *completion), len(completion)))
    trainer = plain.PlainTrainer(
        Path(job.base), encoder.eos_id, examples, job.recipe, job.number_format
    )
    _, _, network = trainer.train(job.seed)
    network.save_pretrained(job.adapters[0])


def _answer(job: Job, encoder: Encoder) -> None:
    prompts = [encoder.prompt(row) for row in job.rows]
    most = plain.longest_label(encoder)
    answers = []
    for adapter in job.adapters:
        network = plain.merged(Path(job.base), Path(adapter), getattr(torch, job.dtype))
        answers.append(plain.generate(network, encoder, prompts, most))
    Path(job.answers).write_text(json.dumps(answers), encoding="utf-8")


def main() -> None:
    """Does the step that the file names."""
    job = _read(Path(sys.argv[1]))
    torch.set_num_threads(job.threads)
    encoder = Encoder(AutoTokenizer.from_pretrained(job.base), job.task)
    _train(job, encoder) if job.kind == "train" else _answer(job, encoder)


if __name__ == "__main__":
    main()
