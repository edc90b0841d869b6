"""Work whose fence is old is refused by name, whoever saw the newer one."""

import grpc
import pytest
from conftest import as_json, make_rows
from test_resume_wire import student_of
from test_wire import LONG, first_step, refusal, wait_until_free

from tutelage_student.contract import student_pb2, task_pb2
from tutelage_student.errors import Code, StudentError
from tutelage_student.fences import Fences

OLD = grpc.StatusCode.FAILED_PRECONDITION


def test_what_one_student_saw_or_has_files_of_counts(tmp_path):
    seen = Fences()
    seen.admit("run", 3)
    for fence in (1, 2):
        with pytest.raises(StudentError, match=f"fence_is_old, {fence} is below 3") as raised:
            seen.admit("run", fence)
        assert raised.value.code is Code.FAILED_PRECONDITION
    seen.admit("run", 3)
    seen.admit("another", 1)
    # A student that was started again remembers nothing, but finds the folder.
    again = Fences()
    with seen.claimed("run", 4, tmp_path / "run/4/checkpoint"):
        with pytest.raises(StudentError, match="fence_is_old, 3 is below 4"):
            again.admit("run", 3, tmp_path / "run/3/checkpoint")
        again.admit("run", 5, tmp_path / "run/5/checkpoint")
        with pytest.raises(StudentError, match="fence_is_old"):
            again.admit("run", 4)
    assert not (tmp_path / "run/4").exists()
    with seen.claimed("run", 6, tmp_path / "run/6/checkpoint"):
        (tmp_path / "run/6/checkpoint").mkdir()
    with pytest.raises(StudentError, match="below 6"):
        Fences().admit("run", 5, tmp_path / "run/5/checkpoint")


def test_work_of_an_old_fence_on_one_student_ends_when_another_has_the_run(wire, tmp_path):
    changes = {"recipe__exact_steps": LONG}
    with student_of(wire, tmp_path, STUDENT_RESUME_STEPS="5") as (_, other):
        stale = other.Train(
            wire.train_request("moved", 1, resume_uri=uri(wire, "moved", 1), **changes)
        )
        first_step(stale)
        current = wire.stub.Train(wire.train_request("moved", 2, **changes))
        first_step(current)
        # It would leave a resume point, which the fence forbids.
        assert "fence_is_old, 1 is below 2" in refusal(stale, OLD)
        refused = other.Train(wire.train_request("moved", 1))
        assert "fence_is_old" in refusal(refused, OLD)
        current.cancel()
        wait_until_free(wire)


def uri(wire, run_id, fence):
    return (wire.artifacts / "runs" / run_id / str(fence) / "resume").as_uri()


def test_a_late_checkpoint_gets_no_name(wire, tmp_path):
    folder = wire.artifacts / "runs/late"
    training = wire.stub.Train(wire.train_request("late", 1, recipe__exact_steps=300))
    first_step(training)
    # As a successor on another machine leaves it on the shared disk.
    (folder / "2").mkdir()
    assert "fence_is_old" in refusal(training, OLD)
    wait_until_free(wire)
    assert not (folder / "1").exists()


def test_predictions_and_exports_of_an_old_fence_are_refused(wire):
    rows = wire.publish([as_json(row) for row in make_rows(3000, seed=2)], "fenced-rows")

    def predict(fence):
        request = wire.predict_request(interactive=False, run_id="asked", fence=fence, rows=rows)
        request.decoding.CopyFrom(student_pb2.Decoding(max_new_tokens=30))
        return wire.stub.Predict(request)

    running = predict(2)
    next(running)
    assert "fence_is_old, 1 is below 2" in refusal(predict(1), OLD)
    refusal(predict(3), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert "fence_is_old, 2 is below 3" in refusal(running, OLD)
    wait_until_free(wire)
    checkpoint = list(wire.stub.Train(wire.train_request("exported")))[-1].checkpoint

    def export(fence):
        return wire.stub.ExportCheckpoint(
            student_pb2.ExportCheckpointRequest(
                run_id="export",
                fence=fence,
                model=wire.model,
                checkpoint_uri=checkpoint.uri,
                form=student_pb2.EXPORT_FORM_ADAPTER,
                task=task_pb2.Task(prompt_template="{input}"),
                rows=rows,
                check_rows=4,
                output_uri=(wire.artifacts / "runs/export" / str(fence)).as_uri(),
            )
        )

    held = export(2)
    next(held)
    assert "fence_is_old, 1 is below 2" in refusal(export(1), OLD)
    held.cancel()
    wait_until_free(wire, 30)
