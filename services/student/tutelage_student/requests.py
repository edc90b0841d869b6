"""From messages of the contract to what the core works with, checked on the way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tutelage_student.artifact import SPLITS, local_path, make_row, read_rows
from tutelage_student.contract import student_pb2, task_pb2
from tutelage_student.errors import invalid
from tutelage_student.predict import Decoding
from tutelage_student.recipe import Recipe
from tutelage_student.resumepoint import ResumePoint
from tutelage_student.task import Message, Row, Task

MOST_INLINE_ROWS = 256
MOST_CHECK_ROWS = 64
# Upper bound of an answer in tokens, where neither task nor request gives one.
ANSWER_TOKENS = {
    task_pb2.TASK_KIND_CLASSIFICATION: 16,
    task_pb2.TASK_KIND_MULTIPLE_CHOICE: 8,
    task_pb2.TASK_KIND_MATH: 256,
    task_pb2.TASK_KIND_TEXT: 256,
    task_pb2.TASK_KIND_EXTRACTION: 256,
}
METHODS: dict[int, Literal["lora", "full", "probe"]] = {
    student_pb2.TUNING_METHOD_LORA: "lora",
    student_pb2.TUNING_METHOD_FULL: "full",
    student_pb2.TUNING_METHOD_PROBE: "probe",
}
EXPORT_FORMS: dict[int, Literal["adapter", "merged"]] = {
    student_pb2.EXPORT_FORM_ADAPTER: "adapter",
    student_pb2.EXPORT_FORM_MERGED: "merged",
}
# Whatever names a task and rows in an artifact.
OfRows = student_pb2.TrainRequest | student_pb2.PredictRequest | student_pb2.ExportCheckpointRequest


@dataclass(frozen=True)
class RowFile:
    """Rows in an artifact, not read yet."""

    path: Path
    sha256: str
    split: str
    row_ids: tuple[str, ...]
    exclude_root_row_ids: tuple[str, ...]

    def read(self) -> list[Row]:
        """Reads and checks the rows. Errors as `artifact.read_rows`."""
        return read_rows(
            self.path, self.sha256, self.split, self.row_ids, self.exclude_root_row_ids
        )


@dataclass(frozen=True)
class TrainJob:
    """A checked TrainRequest."""

    project_id: str
    run_id: str
    fence: int
    model: str
    recipe: Recipe
    rows: RowFile
    task: Task
    seed: int
    output: Path
    output_uri: str
    start: Path | None
    resume: Path | None
    resume_uri: str
    resume_points: tuple[ResumePoint, ...]


@dataclass(frozen=True)
class PredictJob:
    """A checked PredictRequest."""

    run_id: str
    fence: int
    model: str
    checkpoint: Path | None
    task: Task
    rows: RowFile | list[Row]
    score_labels: bool
    decoding: Decoding
    interactive: bool
    skip_rows: int


@dataclass(frozen=True)
class ExportJob:
    """A checked ExportCheckpointRequest."""

    run_id: str
    fence: int
    model: str
    checkpoint: Path
    form: Literal["adapter", "merged"]
    include_base: bool
    task: Task
    rows: RowFile
    check_rows: int
    output: Path
    output_uri: str


def train_job(request: student_pb2.TrainRequest, root: Path) -> TrainJob:
    """Checks a TrainRequest; INVALID_ARGUMENT names the field."""
    _required("run_id", request.run_id, "name the training run")
    _required("model", request.model, "give a model reference")
    if request.fence < 1:
        raise invalid("fence", f"{request.fence}", "use the run's fence, 1 or more")
    return TrainJob(
        request.project_id,
        request.run_id,
        request.fence,
        request.model,
        recipe(request),
        row_file(request, root),
        task(request),
        request.seed,
        local_path(request.output_uri, root, "output_uri"),
        request.output_uri,
        local_path(request.start_checkpoint_uri, root, "start_checkpoint_uri")
        if request.start_checkpoint_uri
        else None,
        local_path(request.resume_uri, root, "resume_uri") if request.resume_uri else None,
        request.resume_uri,
        tuple(
            ResumePoint(
                local_path(point.uri, root, f"resume_points[{index}].uri"),
                point.sha256,
                point.step,
                point.size_bytes,
            )
            for index, point in enumerate(request.resume_points)
        ),
    )


def predict_job(request: student_pb2.PredictRequest, root: Path) -> PredictJob:
    """Checks a PredictRequest; INVALID_ARGUMENT names the field."""
    _required("model", request.model, "give a model reference")
    if not request.interactive:
        _required("run_id", request.run_id, "name the evaluation run, or set interactive")
        if request.fence < 1:
            raise invalid("fence", f"{request.fence}", "use the run's fence, 1 or more")
    if request.HasField("rows") == bool(request.inline_rows):
        raise invalid("rows", "both or neither of rows and inline_rows", "give exactly one")
    if len(request.inline_rows) > MOST_INLINE_ROWS:
        raise invalid(
            "inline_rows",
            f"{len(request.inline_rows)} rows",
            f"give at most {MOST_INLINE_ROWS}, or an artifact in rows",
        )
    if request.skip_rows < 0:
        raise invalid("skip_rows", f"{request.skip_rows}", "use 0 or more")
    the_task = task(request)
    if request.decoding.score_labels and not the_task.labels:
        raise invalid("decoding.score_labels", "the task has no labels", "name them, or unset it")
    decoding = request.decoding
    return PredictJob(
        request.run_id,
        request.fence,
        request.model,
        local_path(request.checkpoint_uri, root, "checkpoint_uri")
        if request.checkpoint_uri
        else None,
        the_task,
        row_file(request, root) if request.HasField("rows") else inline_rows(request),
        decoding.score_labels,
        Decoding(
            decoding.temperature,
            decoding.top_p,
            decoding.max_new_tokens,
            tuple(decoding.stop),
            decoding.seed,
        ),
        request.interactive,
        request.skip_rows,
    )


def export_job(request: student_pb2.ExportCheckpointRequest, root: Path) -> ExportJob:
    """Checks an ExportCheckpointRequest; INVALID_ARGUMENT names the field."""
    _required("run_id", request.run_id, "name the export run")
    _required("model", request.model, "give a model reference")
    if request.fence < 1:
        raise invalid("fence", f"{request.fence}", "use the run's fence, 1 or more")
    if request.form not in EXPORT_FORMS:
        raise invalid("form", "not set", "use EXPORT_FORM_ADAPTER or EXPORT_FORM_MERGED")
    if not 1 <= request.check_rows <= MOST_CHECK_ROWS:
        raise invalid("check_rows", f"{request.check_rows}", f"use 1 to {MOST_CHECK_ROWS}")
    return ExportJob(
        request.run_id,
        request.fence,
        request.model,
        local_path(request.checkpoint_uri, root, "checkpoint_uri"),
        EXPORT_FORMS[request.form],
        request.include_base,
        task(request),
        row_file(request, root),
        request.check_rows,
        local_path(request.output_uri, root, "output_uri"),
        request.output_uri,
    )


def recipe(request: student_pb2.TrainRequest) -> Recipe:
    """The recipe; every field stands in the message, so the core's defaults play no part."""
    given = request.recipe
    if given.method not in METHODS:
        raise invalid(
            "recipe.method",
            "not set",
            "use TUNING_METHOD_LORA, TUNING_METHOD_FULL or TUNING_METHOD_PROBE",
        )
    return Recipe(
        METHODS[given.method],
        given.lora_rank,
        given.lora_alpha,
        given.lora_dropout,
        given.trained_layers,
        given.epochs,
        given.min_steps,
        given.exact_steps,
        given.batch_rows,
        given.micro_batch_tokens,
        given.learning_rate,
        given.warmup_share,
        given.weight_decay,
        given.max_grad_norm,
        given.average_share,
    )


def task(request: OfRows) -> Task:
    """The part of the task that the student needs."""
    if request.task.max_answer_tokens < 0:
        raise invalid("task.max_answer_tokens", "below 0", "use 0 for the default, or more")
    return Task(
        request.task.prompt_template,
        tuple(label.name for label in request.task.labels),
        request.task.max_answer_tokens or ANSWER_TOKENS.get(request.task.kind, 0),
        request.task.name,
    )


def row_file(request: OfRows, root: Path) -> RowFile:
    """Where the rows are and which of them are meant."""
    source = request.rows
    if len(source.sha256) != 64:
        raise invalid("rows.sha256", f"{source.sha256!r}", "give 64 hexadecimal digits")
    if not 0 <= source.split <= len(SPLITS):
        raise invalid("rows.split", f"{source.split}", f"use one of {SPLITS}, or leave it out")
    return RowFile(
        local_path(source.uri, root, "rows.uri"),
        source.sha256,
        SPLITS[source.split - 1] if source.split else "",
        tuple(source.row_ids),
        tuple(source.exclude_root_row_ids),
    )


def inline_rows(request: student_pb2.PredictRequest) -> list[Row]:
    """The rows in the request."""
    rows = []
    for index, given in enumerate(request.inline_rows):
        rows.append(_inline_row(given, index))
    return rows


def _inline_row(given: task_pb2.Row, index: int) -> Row:
    turns = [Message(turn.role, turn.content) for turn in given.messages]
    return make_row(given.id, given.input, given.output, turns, f"inline row {index}")


def _required(field: str, value: str, fix: str) -> None:
    if not value:
        raise invalid(field, "empty", fix)
