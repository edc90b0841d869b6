"""`iteration`: cross-fit, train, evaluate and judge, against one script a step.

Ours are student processes that are asked over gRPC, step by step, as a campaign's training and
evaluation runs ask them: rows from artifacts, checkpoints on disk, side by side where a campaign
does so. They are started before the clock, because a service is there when an iteration begins, and
anew in each round, because nothing of a former round may be kept. The other side starts a fresh
Python process for each step, as the authors' published code does: Trainer and PEFT to train,
batched `generate` to answer. Both get the same rows, folds, steps and rows a step, and answer the
same questions.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import in_turns, report, say
from benchmarks.ourstudent import OurStudent, OurStudents, our_students
from benchmarks.plain import PlainTrainer
from benchmarks.plainstep import Job
from benchmarks.rows import Benched
from tutelage_student.examples import encode
from tutelage_student.model import load
from tutelage_student.recipe import Recipe
from tutelage_student.task import Encoder, Row, Task

SEED_ROWS, CANDIDATES, EVALUATED_ROWS = 60, 60, 200
# Our share of right answers may lie this far below the other side's.
ACCURACY_TOLERANCE = 0.02
# Rounds are seeds, and plain fine-tuning differs by 5 points between two of them.
LEAST_SEEDS = 3
UNITS = 3600.0


@dataclass(frozen=True)
class Plan:
    """What both sides do. folds: the seed rows that student k answers and is not trained on."""

    task: Task
    seed_rows: list[Row]
    folds: list[list[Row]]
    candidates: list[Row]
    evaluated: list[Row]
    recipe: Recipe


@dataclass
class Lap:
    """One side's iteration: seconds by phase, and its answers in the order of the rows."""

    seconds: dict[str, float] = field(default_factory=dict)
    cross_fit: list[list[str]] = field(default_factory=list)
    evaluated: list[str] = field(default_factory=list)
    judged: list[list[str]] = field(default_factory=list)

    def accuracies(self, plan: Plan) -> dict[str, float]:
        """Shares of right answers; those of the judges over all that they were asked."""
        return {
            "cross_fit": _accuracy([*chain(*plan.folds)], [*chain(*self.cross_fit)]),
            "evaluate": _accuracy(plan.evaluated, self.evaluated),
            "judge": _accuracy(plan.candidates * len(plan.folds), [*chain(*self.judged)]),
        }


def run(
    reference: str, home: Path, benched: Benched, recipe: Recipe, rounds: int, *, folds: int = 3
) -> None:
    """Measures, prints the line, and ends with 1 where our student is worse by over two points."""
    plan = plan_of(benched, recipe, folds)
    threads = torch.get_num_threads()
    base = load(reference, home, device="cpu")
    number_format = _number_format(base, plan)
    base_folder, dtype = base.source.folder, str(base.dtype).removeprefix("torch.")
    # Two processes take turns beside this one: it holds no model meanwhile.
    del base
    laps: dict[str, list[Lap]] = {"ours": [], "theirs": []}

    def ours(seed: int) -> tuple[float, float]:
        with (
            tempfile.TemporaryDirectory() as name,
            our_students(Path(name), home, reference, plan.task, threads) as students,
        ):
            laps["ours"].append(our_lap(students, plan, seed))
        return UNITS, sum(laps["ours"][-1].seconds.values())

    def theirs(seed: int) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as name:
            steps = Steps(Path(name), base_folder, dtype, number_format, threads)
            laps["theirs"].append(their_lap(steps, plan, seed))
        return UNITS, sum(laps["theirs"][-1].seconds.values())

    our_side, their_side = in_turns(rounds, ours, theirs)
    accuracy = {side: _means([lap.accuracies(plan) for lap in done]) for side, done in laps.items()}
    behind = accuracy["theirs"]["evaluate"] - accuracy["ours"]["evaluate"]
    if rounds < LEAST_SEEDS:
        say(f"iteration: {rounds} seeds say little of the accuracy; give {LEAST_SEEDS} rounds")
    report(
        "iteration",
        "iterations/hour",
        our_side,
        their_side,
        {
            "rows_from": benched.source,
            "rows": len(plan.seed_rows),
            "candidates": len(plan.candidates),
            "evaluated_rows": len(plan.evaluated),
            "folds": folds,
            "steps": recipe.exact_steps,
            "batch_rows": recipe.batch_rows,
            "format": {"ours": dtype, "theirs": number_format},
            "processes_of_theirs": 2 * folds + 3,
            "seconds": {
                side: _medians([lap.seconds for lap in done]) for side, done in laps.items()
            },
            "accuracy": accuracy,
            "seeds": rounds,
        },
        same=behind <= ACCURACY_TOLERANCE,
    )


def plan_of(benched: Benched, recipe: Recipe, folds: int) -> Plan:
    """Folds in turns; candidates stand for what a teacher wrote: rows that no student has seen."""
    candidates = round(len(benched.held_out) * CANDIDATES / (CANDIDATES + EVALUATED_ROWS))
    return Plan(
        benched.task,
        benched.train,
        [benched.train[fold::folds] for fold in range(folds)],
        benched.held_out[:candidates],
        benched.held_out[candidates:],
        recipe,
    )


def our_lap(students: OurStudents, plan: Plan, seed: int) -> Lap:
    """Our side's iteration. The round's student is the last of those trained side by side."""
    lap = Lap()
    clock = _Clock(lap.seconds)
    seed_rows = students.first.publish(plan.seed_rows)

    def fit(number: int) -> Callable[[OurStudent], tuple[str, list[str]]]:
        ids = [row.id for row in plan.folds[number]] if number < len(plan.folds) else []

        def job(student: OurStudent) -> tuple[str, list[str]]:
            trained = student.train(seed_rows, ids, plan.recipe, _seed(seed, number))
            return trained, student.answer(trained, seed_rows, ids) if ids else []

        return job

    *judges, (trained, _) = students.side_by_side([fit(n) for n in range(len(plan.folds) + 1)])
    lap.cross_fit = [answers for _, answers in judges]
    clock.phase("train")
    evaluated = students.first.publish(plan.evaluated)
    lap.evaluated = students.first.answer(trained, evaluated)
    clock.phase("evaluate")
    candidates = students.first.publish(plan.candidates)

    def judge(checkpoint: str) -> Callable[[OurStudent], list[str]]:
        return lambda student: student.answer(checkpoint, candidates)

    lap.judged = students.side_by_side([judge(checkpoint) for checkpoint, _ in judges])
    clock.phase("judge")
    return lap


def their_lap(steps: "Steps", plan: Plan, seed: int) -> Lap:
    """The other side's iteration."""
    lap = Lap()
    clock = _Clock(lap.seconds)
    judges = []
    for number, fold in enumerate(plan.folds):
        held_out = {row.id for row in fold}
        rows = [row for row in plan.seed_rows if row.id not in held_out]
        judges.append(steps.train(plan, rows, _seed(seed, number)))
        lap.cross_fit += steps.answer(plan, judges[-1:], fold)
    trained = steps.train(plan, plan.seed_rows, _seed(seed, len(plan.folds)))
    clock.phase("train")
    lap.evaluated = steps.answer(plan, [trained], plan.evaluated)[0]
    clock.phase("evaluate")
    # One script for all judges, which spares the other side some starts.
    lap.judged = steps.answer(plan, judges, plan.candidates)
    clock.phase("judge")
    return lap


class Steps:
    """The other side's scripts, each a process of its own."""

    def __init__(
        self, folder: Path, base: Path, dtype: str, number_format: str, threads: int
    ) -> None:
        self._folder = folder
        self._base = base
        self._dtype = dtype
        self._number_format = number_format
        self._threads = threads
        self._started = 0

    def train(self, plan: Plan, rows: Sequence[Row], seed: int) -> str:
        """The folder of the adapter."""
        adapter = str(self._folder / f"adapter-{self._started}")
        self._run(plan, "train", [adapter], rows, seed)
        return adapter

    def answer(self, plan: Plan, adapters: list[str], rows: Sequence[Row]) -> list[list[str]]:
        """What each of these students answers."""
        answers: list[list[str]] = json.loads(self._run(plan, "answer", adapters, rows, 0))
        return answers

    def _run(
        self, plan: Plan, kind: str, adapters: list[str], rows: Sequence[Row], seed: int
    ) -> str:
        number = self._started
        self._started += 1
        path, answers = self._folder / f"{number}.json", self._folder / f"{number}-answers.json"
        Job(
            kind,
            str(self._base),
            adapters,
            plan.task,
            list(rows),
            str(answers),
            plan.recipe,
            self._number_format,
            self._dtype,
            seed,
            self._threads,
        ).write(path)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.plainstep", str(path)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the other side's step {kind} failed: {done.stderr[-2000:]}")
        return answers.read_text(encoding="utf-8") if answers.exists() else ""


class _Clock:
    """Notes the seconds since the phase before."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._began = time.perf_counter()

    def phase(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] = now - self._began
        self._began = now


def _number_format(base: Any, plan: Plan) -> str:
    """The fastest for the other side's trainings, found before the clock runs."""
    examples, _ = encode(base, Encoder(base.tokenizer, plan.task), plan.seed_rows)
    eos_id = int(base.tokenizer.eos_token_id)
    return PlainTrainer(base.source.folder, eos_id, examples, plan.recipe).format


def _seed(seed: int, training: int) -> int:
    return 100 * seed + training


def _accuracy(rows: Sequence[Row], answers: Sequence[str]) -> float:
    right = [row.output == answer for row, answer in zip(rows, answers, strict=True)]
    return sum(right) / len(right)


def _means(values: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.mean(one[name] for one in values), 4) for name in values[0]}


def _medians(values: Sequence[dict[str, float]]) -> dict[str, float]:
    phases = {name: statistics.median(one[name] for one in values) for name in values[0]}
    total = statistics.median(sum(one.values()) for one in values)
    return {name: round(value, 2) for name, value in {**phases, "all": total}.items()}
