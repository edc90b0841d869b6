"""What the device thread does for the service: models, checkpoints, training, prediction."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

from tutelage_student import checkpoint, messages
from tutelage_student.activations import ActivationCache
from tutelage_student.contract import student_pb2
from tutelage_student.device import Device
from tutelage_student.errors import STOPPING, Code, StudentError, invalid
from tutelage_student.export import STAGES, export
from tutelage_student.exportcheck import sample
from tutelage_student.fences import Fences
from tutelage_student.log import info
from tutelage_student.model import Model, load
from tutelage_student.predict import generate, score_labels
from tutelage_student.probefit import fit_probe
from tutelage_student.requests import (
    MOST_INLINE_ROWS,
    ExportJob,
    PredictJob,
    RowFile,
    TrainJob,
)
from tutelage_student.resumepoint import ResumePoint, Resumption
from tutelage_student.settings import Settings
from tutelage_student.train import SmallerMicroBatch, Start, Step, fine_tune
from tutelage_student.watchdog import Watchdog
from tutelage_student.weights import StudentWeights

# Rows between two messages of a batch prediction.
ROWS_PER_MESSAGE = 256
# A training that says nothing for longer says that it is alive.
ALIVE_SECONDS = 5.0


class Worker:
    """Runs jobs on the device; all methods but the properties run in its thread."""

    def __init__(self, settings: Settings, device: Device, fences: Fences) -> None:
        self.settings = settings
        self.device = device
        self.fences = fences
        self.stopping = threading.Event()
        self.watchdog = Watchdog(settings.stall_seconds)
        # The training that runs: set where it is to leave a resume point soon.
        self._point_wanted: dict[tuple[str, int], threading.Event] = {}
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._checkpoints: OrderedDict[tuple[str, str, str], StudentWeights] = OrderedDict()
        self._activations = ActivationCache(settings.activation_cache_mb << 20)

    @property
    def loaded_models(self) -> list[str]:
        """References of the models in memory."""
        return list(self._models)

    def model(self, reference: str) -> Model:
        """The loaded model; loads it first where needed, dropping the least recently used."""
        model = self._models.get(reference)
        if model is None:
            wanted = self.settings.base_dtype
            # A first download takes as long as it takes.
            with self.watchdog.watching(False):
                model = load(
                    reference,
                    self.settings.home,
                    allow_hub=self.settings.allow_hub,
                    device=None if self.settings.device == "auto" else self.settings.device,
                    dtype=None if wanted == "auto" else getattr(torch, wanted),
                )
            self._models[reference] = model
            info("model loaded", model=reference, digest=model.source.digest)
            while len(self._models) > self.settings.loaded_models:
                dropped, _ = self._models.popitem(last=False)
                for key in [key for key in self._checkpoints if key[0] == dropped]:
                    del self._checkpoints[key]
        self._models.move_to_end(reference)
        return model

    def weights(self, model: Model, folder: Path, field: str) -> StudentWeights:
        """A checkpoint's weights, from memory if they were used recently and are unchanged."""
        manifest = checkpoint.read_manifest(folder, field)
        key = (model.source.reference, str(folder), str(sorted(manifest["files"].items())))
        weights = self._checkpoints.get(key)
        if weights is None:
            weights = checkpoint.read(folder, model, field)
            self._checkpoints[key] = weights
            limit = self.settings.checkpoint_cache_mb << 20
            while sum(kept.size_bytes for kept in self._checkpoints.values()) > limit:
                self._checkpoints.popitem(last=False)
        if key in self._checkpoints:
            self._checkpoints.move_to_end(key)
        return weights

    def leave_resume_point(self, run_id: str, fence: int) -> None:
        """Has the training that runs leave a resume point; called by any thread."""
        wanted = self._point_wanted.get((run_id, fence))
        if wanted is None:
            raise StudentError(
                Code.FAILED_PRECONDITION, f"run_id: {run_id} does not train here; ask its holder"
            )
        wanted.set()

    def resolve(self, reference: str) -> student_pb2.ResolveModelResponse:
        """Loads the model and says what it is."""
        model = self.model(reference)
        return student_pb2.ResolveModelResponse(
            model_digest=model.source.digest,
            context_tokens=model.context_tokens,
            parameters=model.parameters,
        )

    def pause(self, run_id: str, fence: int, cancelled: threading.Event) -> Callable[[], None]:
        """What a long job does between its steps: stop if it should, else let others in."""

        def check() -> None:
            self._stop_if(cancelled)
            if run_id:
                self.fences.admit(run_id, fence)
            self.device.serve_waiting()

        return check

    def _stop_if(self, cancelled: threading.Event) -> None:
        self.watchdog.beat()
        _stop_if_cancelled(cancelled)
        if self.stopping.is_set():
            raise StudentError(Code.UNAVAILABLE, STOPPING)

    def train(
        self,
        job: TrainJob,
        cancelled: threading.Event,
        emit: Callable[[student_pb2.TrainEvent], None],
    ) -> None:
        """Fine-tunes, from the start or a resume point, or fits a probe; writes the checkpoint."""
        claimed = self.fences.claimed(job.run_id, job.fence, job.output)
        which = (job.run_id, job.fence)
        wanted = self._point_wanted.setdefault(which, threading.Event())
        try:
            with self.watchdog.watching(), claimed:
                self._train(job, cancelled, wanted, emit)
        finally:
            del self._point_wanted[which]

    def _train(
        self,
        job: TrainJob,
        cancelled: threading.Event,
        point_wanted: threading.Event,
        emit: Callable[[student_pb2.TrainEvent], None],
    ) -> None:
        pause = self.pause(job.run_id, job.fence, cancelled)
        pause()
        rows = job.rows.read()
        model = self.model(job.model)
        start = self.weights(model, job.start, "start_checkpoint_uri") if job.start else None
        said_at = time.monotonic()

        def say(event: student_pb2.TrainEvent) -> None:
            nonlocal said_at
            said_at = time.monotonic()
            emit(event)

        def on_start(known: Start) -> None:
            info(
                "training started",
                run_id=job.run_id,
                rows=known.rows,
                steps=known.total_steps,
                resumed_step=known.resumed_step,
                unusable_points=list(known.unusable_points),
            )
            say(messages.started(known))
            for reason in known.unusable_points:
                say(messages.resume_point_unusable(known, reason))

        def on_smaller(smaller: SmallerMicroBatch) -> None:
            info("out of memory; smaller micro-batches", run_id=job.run_id, **vars(smaller))
            say(messages.smaller_micro_batch(smaller))

        def on_point(point: ResumePoint) -> None:
            point_wanted.clear()
            say(messages.resume_point(job, point))

        def on_failure(step: int, reason: str) -> None:
            info("no resume point", run_id=job.run_id, step=step, reason=reason)
            say(messages.resume_point_not_written(step, reason))

        def permitted() -> None:
            _stop_if_cancelled(cancelled)
            self.fences.admit(job.run_id, job.fence, job.output)

        def between() -> None:
            # A process that is to stop ends the step first, and leaves a resume point after it.
            self.watchdog.beat()
            _stop_if_cancelled(cancelled)
            if time.monotonic() - said_at >= ALIVE_SECONDS:
                say(messages.alive())

        def on_step(step: Step) -> None:
            say(messages.step(step))

        if job.recipe.method == "probe":
            student = fit_probe(
                model,
                rows,
                job.task,
                start=start,
                on_start=on_start,
                on_step=on_step,
                pause=pause,
                between=between,
            )
        else:
            student = fine_tune(
                model,
                rows,
                job.task,
                job.recipe,
                job.seed,
                start=start,
                activations=self._activations,
                resumption=Resumption(
                    job.resume,
                    job.resume_points,
                    every_seconds=self.settings.resume_seconds,
                    every_steps=self.settings.resume_steps,
                    permitted=permitted,
                    wanted=lambda: self.stopping.is_set() or point_wanted.is_set(),
                    on_point=on_point,
                    on_failure=on_failure,
                ),
                on_start=on_start,
                on_step=on_step,
                on_smaller=on_smaller,
                pause=pause,
                between=between,
            )
        origin = {"project_id": job.project_id, "run_id": job.run_id, "fence": job.fence}
        saved = checkpoint.save(
            job.output,
            model,
            student,
            job.recipe,
            job.task,
            job.seed,
            {**origin, "rows_sha256": job.rows.sha256, "rows": len(rows)},
            permitted,
        )
        info("training done", run_id=job.run_id, seconds=round(student.seconds, 2))
        emit(messages.checkpoint(job, model, student, saved))

    def predict(
        self,
        job: PredictJob,
        cancelled: threading.Event,
        emit: Callable[[student_pb2.PredictResponse], None],
    ) -> None:
        """Answers all rows. A batch job lets others in between; an interactive one does not."""
        with self.watchdog.watching():
            self._predict(job, cancelled, emit)

    def _predict(
        self,
        job: PredictJob,
        cancelled: threading.Event,
        emit: Callable[[student_pb2.PredictResponse], None],
    ) -> None:
        batch_pause = self.pause(job.run_id, job.fence, cancelled)

        def pause() -> None:
            if job.interactive:
                self._stop_if(cancelled)
            else:
                batch_pause()

        pause()
        rows = job.rows.read() if isinstance(job.rows, RowFile) else job.rows
        if job.interactive and len(rows) > MOST_INLINE_ROWS:
            raise invalid(
                "interactive", f"{len(rows)} rows", f"ask at most {MOST_INLINE_ROWS}, or unset it"
            )
        model = self.model(job.model)
        weights = self.weights(model, job.checkpoint, "checkpoint_uri") if job.checkpoint else None
        for first in range(job.skip_rows, len(rows), ROWS_PER_MESSAGE):
            part = rows[first : first + ROWS_PER_MESSAGE]
            if job.score_labels:
                predictions = score_labels(
                    model, part, job.task, weights, activations=self._activations, pause=pause
                )
            else:
                predictions = generate(model, part, job.task, weights, job.decoding, pause=pause)
            emit(
                student_pb2.PredictResponse(
                    predictions=[messages.prediction(prediction) for prediction in predictions],
                    total_rows=len(rows),
                )
            )

    def export(
        self,
        job: ExportJob,
        cancelled: threading.Event,
        emit: Callable[[student_pb2.ExportCheckpointEvent], None],
    ) -> None:
        """Writes the student as files for others, and has them checked."""
        pause = self.pause(job.run_id, job.fence, cancelled)
        pause()
        rows = sample(job.rows.read(), job.check_rows)
        if not rows:
            raise invalid("rows", "none to check with", "give at least one row")
        model = self.model(job.model)
        weights = self.weights(model, job.checkpoint, "checkpoint_uri")

        def stage(number: int) -> None:
            message = student_pb2.ExportStage(
                name=STAGES[number - 1], number=number, total=len(STAGES)
            )
            emit(student_pb2.ExportCheckpointEvent(stage=message))

        result = export(
            job.output,
            model,
            job.checkpoint,
            weights,
            job.form,
            job.task,
            rows,
            include_base=job.include_base,
            pause=pause,
            stage=stage,
        )
        info("export done", run_id=job.run_id, form=job.form, check_passed=result.check.passed)
        emit(student_pb2.ExportCheckpointEvent(exported=messages.exported(job, model, result)))


def _stop_if_cancelled(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise StudentError(Code.CANCELLED, "the caller went; the work is stopped")
