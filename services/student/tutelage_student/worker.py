"""What the device thread does for the service: models, checkpoints, training, prediction."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

from tutelage_student import checkpoint
from tutelage_student.activations import ActivationCache
from tutelage_student.contract import student_pb2
from tutelage_student.device import Device
from tutelage_student.errors import STOPPING, Code, StudentError, invalid
from tutelage_student.export import STAGES, Export, export
from tutelage_student.exportcheck import sample
from tutelage_student.fences import Fences
from tutelage_student.log import info
from tutelage_student.model import Model, load
from tutelage_student.predict import Prediction, generate, score_labels
from tutelage_student.requests import (
    MOST_INLINE_ROWS,
    ExportJob,
    PredictJob,
    RowFile,
    TrainJob,
)
from tutelage_student.settings import Settings
from tutelage_student.train import Start, Step, fine_tune
from tutelage_student.weights import Weights

# Rows between two messages of a batch prediction.
ROWS_PER_MESSAGE = 256


class Worker:
    """Runs jobs on the device; all methods but the properties run in its thread."""

    def __init__(self, settings: Settings, device: Device, fences: Fences) -> None:
        self.settings = settings
        self.device = device
        self.fences = fences
        self.stopping = threading.Event()
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._checkpoints: OrderedDict[tuple[str, str, str], Weights] = OrderedDict()
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

    def weights(self, model: Model, folder: Path, field: str) -> Weights:
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
        if cancelled.is_set():
            raise StudentError(Code.CANCELLED, "the caller went; the work is stopped")
        if self.stopping.is_set():
            raise StudentError(Code.UNAVAILABLE, STOPPING)

    def train(
        self,
        job: TrainJob,
        cancelled: threading.Event,
        emit: Callable[[student_pb2.TrainEvent], None],
    ) -> None:
        """Fine-tunes and writes the checkpoint."""
        pause = self.pause(job.run_id, job.fence, cancelled)
        pause()
        rows = job.rows.read()
        model = self.model(job.model)
        start = self.weights(model, job.start, "start_checkpoint_uri") if job.start else None

        def on_start(known: Start) -> None:
            info("training started", run_id=job.run_id, rows=known.rows, steps=known.total_steps)
            emit(
                student_pb2.TrainEvent(
                    started=student_pb2.TrainStarted(
                        rows=known.rows,
                        total_steps=known.total_steps,
                        too_long_row_ids=known.too_long_row_ids,
                        trainable_parameters=known.trainable_parameters,
                    )
                )
            )

        def on_step(step: Step) -> None:
            emit(student_pb2.TrainEvent(step=student_pb2.TrainStep(**vars(step))))
            pause()

        student = fine_tune(
            model,
            rows,
            job.task,
            job.recipe,
            job.seed,
            start=start,
            activations=self._activations,
            on_start=on_start,
            on_step=on_step,
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
            pause,
        )
        info("training done", run_id=job.run_id, seconds=round(student.seconds, 2))
        emit(
            student_pb2.TrainEvent(
                checkpoint=student_pb2.Checkpoint(
                    uri=job.output_uri,
                    sha256=saved.sha256,
                    model=job.model,
                    model_digest=model.source.digest,
                    size_bytes=saved.size_bytes,
                    final_loss=student.final_loss,
                    trained_tokens=student.trained_tokens,
                )
            )
        )

    def predict(
        self,
        job: PredictJob,
        cancelled: threading.Event,
        emit: Callable[[student_pb2.PredictResponse], None],
    ) -> None:
        """Answers all rows. A batch job lets others in between; an interactive one does not."""
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
        for first in range(0, len(rows), ROWS_PER_MESSAGE):
            part = rows[first : first + ROWS_PER_MESSAGE]
            if job.score_labels:
                predictions = score_labels(
                    model, part, job.task, weights, activations=self._activations, pause=pause
                )
            else:
                predictions = generate(model, part, job.task, weights, job.decoding, pause=pause)
            emit(
                student_pb2.PredictResponse(
                    predictions=[_message(prediction) for prediction in predictions],
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
        emit(student_pb2.ExportCheckpointEvent(exported=_exported(job, model, result)))


def _exported(job: ExportJob, model: Model, result: Export) -> student_pb2.ExportedStudent:
    return student_pb2.ExportedStudent(
        uri=job.output_uri,
        sha256=result.sha256,
        size_bytes=result.size_bytes,
        files=[student_pb2.ExportedFile(**vars(file)) for file in result.files],
        model=job.model,
        model_digest=model.source.digest,
        dtype=result.dtype,
        includes_base=result.includes_base,
        labels_end_with_eos=result.labels_end_with_eos,
        measured_dtype=str(model.dtype).removeprefix("torch."),
        check=student_pb2.ExportCheck(
            passed=result.check.passed,
            rows=result.check.rows,
            comparisons=[
                student_pb2.ExportComparison(**vars(comparison))
                for comparison in result.check.comparisons
            ],
        ),
    )


def _message(prediction: Prediction) -> student_pb2.Prediction:
    return student_pb2.Prediction(
        row_id=prediction.row_id,
        text=prediction.text,
        log_probability=prediction.log_probability,
        label_scores=[
            student_pb2.LabelScore(label=label, log_probability=value)
            for label, value in prediction.label_log_probabilities.items()
        ],
        too_long=prediction.too_long,
    )
