"""From what the core gives to messages of the contract."""

from tutelage_student.checkpoint import SavedCheckpoint
from tutelage_student.contract import student_pb2
from tutelage_student.export import Export
from tutelage_student.model import Model
from tutelage_student.questions import Prediction
from tutelage_student.requests import ExportJob, TrainJob
from tutelage_student.resumepoint import ResumePoint
from tutelage_student.train import SmallerMicroBatch, Start, Step, Student


def started(start: Start) -> student_pb2.TrainEvent:
    """The job begins."""
    return student_pb2.TrainEvent(
        started=student_pb2.TrainStarted(
            rows=start.rows,
            total_steps=start.total_steps,
            too_long_row_ids=start.too_long_row_ids,
            trainable_parameters=start.trainable_parameters,
            resumed_step=start.resumed_step,
        )
    )


def step(step: Step) -> student_pb2.TrainEvent:
    """A step ended."""
    return student_pb2.TrainEvent(step=student_pb2.TrainStep(**vars(step)))


def alive() -> student_pb2.TrainEvent:
    """A long step goes on."""
    return student_pb2.TrainEvent(alive=student_pb2.TrainAlive())


def resume_point(job: TrainJob, point: ResumePoint) -> student_pb2.TrainEvent:
    """A resume point is on disk; it is named as the caller names its folder, links and all."""
    return student_pb2.TrainEvent(
        resume_point=student_pb2.ResumePoint(
            uri=f"{job.resume_uri.rstrip('/')}/{point.path.name}",
            sha256=point.sha256,
            step=point.step,
            size_bytes=point.size_bytes,
        )
    )


def resume_point_unusable(start: Start, reason: str) -> student_pb2.TrainEvent:
    """A resume point was passed over."""
    return _incident(
        student_pb2.TRAIN_INCIDENT_KIND_RESUME_POINT_UNUSABLE,
        start.resumed_step,
        f"a resume point could not be used: {reason}",
    )


def resume_point_not_written(step: int, reason: str) -> student_pb2.TrainEvent:
    """A resume point was not left."""
    return _incident(
        student_pb2.TRAIN_INCIDENT_KIND_RESUME_POINT_NOT_WRITTEN,
        step,
        f"no resume point could be written: {reason}",
    )


def smaller_micro_batch(smaller: SmallerMicroBatch) -> student_pb2.TrainEvent:
    """Memory did not suffice."""
    return _incident(
        student_pb2.TRAIN_INCIDENT_KIND_SMALLER_MICRO_BATCH,
        smaller.step,
        f"out of memory in step {smaller.step}: it is made again in micro-batches of "
        f"{smaller.to_tokens} tokens instead of {smaller.from_tokens}, and so are later steps",
    )


def _incident(
    kind: student_pb2.TrainIncidentKind, step: int, message: str
) -> student_pb2.TrainEvent:
    return student_pb2.TrainEvent(
        incident=student_pb2.TrainIncident(kind=kind, step=step, message=message)
    )


def checkpoint(
    job: TrainJob, model: Model, student: Student, saved: SavedCheckpoint
) -> student_pb2.TrainEvent:
    """The student is on disk."""
    return student_pb2.TrainEvent(
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


def prediction(prediction: Prediction) -> student_pb2.Prediction:
    """One answer."""
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


def exported(job: ExportJob, model: Model, result: Export) -> student_pb2.ExportedStudent:
    """The student as files."""
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
