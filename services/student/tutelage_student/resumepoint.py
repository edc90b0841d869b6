"""Resume points: a training's state on disk, for a successor to go on from.

A point is one file, written to a temporary name, forced to the disk and renamed. Its digest is kept
by whoever asked for the training, so that a torn or altered file is not taken for a point. It also
says what training it belongs to: rows, recipe, seed, base weights and where they are computed.
"""

import hashlib
import json
import os
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tutelage_student.examples import Example
from tutelage_student.files import json_text, make_folder, sync
from tutelage_student.model import Model
from tutelage_student.recipe import Recipe
from tutelage_student.reference import file_sha256
from tutelage_student.trainingstate import TrainingState

FORMAT = "tutelage-resume-2"
# Points may cost a fiftieth of the time that is trained.
LARGEST_SHARE = 0.02
# What a slow disk takes, until a first point has shown what this one does.
EXPECTED_BYTES_PER_SECOND = 200e6


@dataclass(frozen=True)
class ResumePoint:
    """A file that holds a training's state after `step` steps."""

    path: Path
    sha256: str
    step: int
    size_bytes: int = 0


@dataclass
class Resumption:
    """What a training goes on from, and when and where it leaves points for a successor.

    earlier: points of the same training, newest first; the first that is whole is taken.
    every_seconds, every_steps: after either a point is due; 0 turns that one off. Seconds stretch
    so that points cost 2 % at most.
    permitted: called before a point gets its name; an exception from it ends the training.
    wanted: whether a point is due now, as the process or the training is about to be stopped.
    on_point, on_failure: told of each point, and at which step one could not be written and why;
    the training goes on, only less safe.
    """

    folder: Path | None
    earlier: Sequence[ResumePoint] = ()
    every_seconds: float = 60.0
    every_steps: int = 0
    permitted: Callable[[], None] = lambda: None
    wanted: Callable[[], bool] = lambda: False
    on_point: Callable[[ResumePoint], None] = lambda point: None
    on_failure: Callable[[int, str], None] = lambda step, reason: None
    clock: Callable[[], float] = time.perf_counter
    _training: str = field(default="", init=False)
    _waits_seconds: float = field(default=0.0, init=False)
    _saved_at: float = field(default=0.0, init=False)

    def begin(self, state: TrainingState, training: str) -> list[str]:
        """Puts the state to the newest point that is whole; says why others were passed over.

        training: what `identity` says of the training that begins.
        """
        self._training = training
        size = sum(tensor.nbytes for tensor in state.tensors().values())
        self._wait_after(size / EXPECTED_BYTES_PER_SECOND)
        unusable = []
        for point in self.earlier:
            try:
                _read(point, state, training)
                break
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                unusable.append(f"{point.path.name}: {error}")
        return unusable

    def after_step(self, state: TrainingState) -> None:
        """Leaves a point if one is due."""
        if self.folder is None or not self._is_due(state.step):
            return
        began = self.clock()
        try:
            point = _write(self.folder, state, self._training, self.permitted)
        except (OSError, SafetensorError) as error:
            self.on_failure(state.step, str(error))
        else:
            self.on_point(point)
        self._wait_after(self.clock() - began)

    def _is_due(self, step: int) -> bool:
        if self.wanted() or (self.every_steps and step % self.every_steps == 0):
            return True
        waited = self.clock() - self._saved_at
        return bool(self.every_seconds) and waited >= self._waits_seconds

    def _wait_after(self, cost_seconds: float) -> None:
        self._saved_at = self.clock()
        self._waits_seconds = max(self.every_seconds, cost_seconds / LARGEST_SHARE)


def identity(
    model: Model, examples: Sequence[Example], recipe: Recipe, seed: int, state: TrainingState
) -> str:
    """Digest of all that shapes a training, of a state that has made no step."""
    digest = hashlib.sha256()
    facts = {
        "model": model.source.digest,
        "dtype": str(model.dtype),
        "device": model.device.type,
        "recipe": asdict(recipe),
        "seed": seed,
    }
    digest.update(json_text(facts).encode())
    for example in examples:
        digest.update(array("q", (example.completion, *example.ids)).tobytes())
    digest.update(state.weights.flat.cpu().numpy().data)
    return digest.hexdigest()


def _write(
    folder: Path, state: TrainingState, training: str, permitted: Callable[[], None]
) -> ResumePoint:
    make_folder(folder)
    path = folder / f"step-{state.step:08d}.safetensors"
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    facts = {"format": FORMAT, "training": training, "numbers": json.dumps(state.numbers())}
    try:
        save_file(state.tensors(), str(temporary), metadata=facts)
        sync(temporary)
        digest = file_sha256(temporary)
        permitted()
        temporary.rename(path)
        sync(folder)
    finally:
        temporary.unlink(missing_ok=True)
    return ResumePoint(path, digest, state.step, path.stat().st_size)


def _read(point: ResumePoint, state: TrainingState, training: str) -> None:
    if file_sha256(point.path) != point.sha256:
        raise ValueError("its digest is another; it was torn or altered")
    with safe_open(str(point.path), framework="pt") as file:
        facts = file.metadata() or {}
        if facts.get("format") != FORMAT:
            raise ValueError(f"is not of format {FORMAT}")
        if facts.get("training") != training:
            raise ValueError("belongs to a training of other rows, recipe, seed or base weights")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state.restore(json.loads(facts["numbers"]), tensors)
