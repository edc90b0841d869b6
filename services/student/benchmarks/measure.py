"""Two sides measured in turns, and what came of it as one JSON line."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tutelage_student.model import Model


@dataclass(frozen=True)
class Side:
    """One side's work in each round, in units per second."""

    name: str
    speeds: list[float]

    @property
    def summary(self) -> dict[str, Any]:
        """Median and the lowest and highest round."""
        return {
            "name": self.name,
            "median": round(statistics.median(self.speeds), 2),
            "low": round(min(self.speeds), 2),
            "high": round(max(self.speeds), 2),
            "rounds": len(self.speeds),
        }


def in_turns(
    rounds: int,
    ours: Callable[[int], tuple[float, float]],
    theirs: Callable[[int], tuple[float, float]],
) -> tuple[Side, Side]:
    """Runs both sides once a round, ours first in even rounds.

    Each gets the round's number and gives (units of work, seconds).
    """
    sides = {"ours": (ours, []), "theirs": (theirs, [])}  # type: dict[str, Any]
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in order:
            work, speeds = sides[name]
            units, seconds = work(number)
            speeds.append(units / seconds)
            say(f"round {number + 1} of {rounds}, {name}: {speeds[-1]:.1f}/s")
    return Side("ours", sides["ours"][1]), Side("theirs", sides["theirs"][1])


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds of an action, and what it gave."""
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result


def peak_flops(model: Model) -> float:
    """The limit: operations per second of a matrix product of the model's shape and format."""
    size = model.network.config.hidden_size
    x = torch.randn(512, size).to(model.device, model.dtype)
    weight = torch.randn(size * 3, size).to(model.device, model.dtype)

    def products() -> None:
        for _ in range(20):
            torch.nn.functional.linear(x, weight)

    products()
    seconds = min(timed(products)[0] for _ in range(3))
    return float(20 * 2 * 512 * size * size * 3 / seconds)


def say(line: str) -> None:
    """Progress goes to standard error: standard output is the result."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def report(
    name: str, unit: str, ours: Side, theirs: Side, more: dict[str, Any], same: bool
) -> None:
    """Prints the one line, and ends with 1 where the two sides did not give the same result."""
    ratio = statistics.median(ours.speeds) / statistics.median(theirs.speeds)
    line = {
        "benchmark": name,
        "unit": unit,
        "ratio": round(ratio, 2),
        "ours": ours.summary,
        "theirs": theirs.summary,
        "same_result": same,
        "threads": torch.get_num_threads(),
        **more,
    }
    sys.stdout.write(f"{json.dumps(line)}\n")
    if not same:
        say(f"{name}: the two sides did not give the same result")
        raise SystemExit(1)
