"""A student process that is killed, stopped, or hangs in the middle of a training."""

import os
import time
from contextlib import contextmanager

import grpc
import pytest
from conftest import start_student
from test_wire import LONG, refusal

from tutelage_student.artifact import local_path
from tutelage_student.contract import student_pb2, student_pb2_grpc, task_pb2


def weights_of(wire, run_id, fence):
    folder = wire.artifacts / "runs" / run_id / str(fence)
    return (folder / "adapter_model.safetensors").read_bytes()


def resumable(wire, run_id, fence=1, /, points=(), **changes):
    return wire.train_request(
        run_id,
        fence,
        resume_uri=(wire.artifacts / "runs" / run_id / f"{fence}-resume").as_uri(),
        resume_points=points,
        recipe__lora_dropout=0.1,
        recipe__average_share=0.3,
        recipe__exact_steps=60,
        **changes,
    )


@contextmanager
def student_of(wire, home, **variables):
    """Another student on the same artifacts: its process and stub."""
    process, port = start_student(wire.artifacts, home, **variables)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield process, student_pb2_grpc.StudentServiceStub(channel)
    if process.poll() is None:
        process.terminate()
        assert process.wait(20) == 0


def test_a_training_killed_in_the_middle_goes_on_to_the_same_bytes(wire, tmp_path):
    list(wire.stub.Train(resumable(wire, "whole")))
    points = []
    with student_of(wire, tmp_path / "a", STUDENT_RESUME_STEPS="10") as (process, stub):
        training = stub.Train(resumable(wire, "killed"))
        last = 0
        for event in training:
            last = max(last, event.step.step)
            if event.HasField("resume_point"):
                points.insert(0, event.resume_point)
                # The steps before a point are known to whoever learns of it.
                assert event.resume_point.step == last
            if last == 33:
                process.kill()
                break
        process.wait(10)
    assert [point.step for point in points] == [30, 20, 10]
    # A crash may tear the newest.
    newest = local_path(points[0].uri, wire.artifacts, "uri")
    newest.write_bytes(newest.read_bytes()[:1000])
    events = list(wire.stub.Train(resumable(wire, "killed", 2, points=points)))
    assert events[0].started.resumed_step == 20
    assert events[1].incident.kind == student_pb2.TRAIN_INCIDENT_KIND_RESUME_POINT_UNUSABLE
    assert "digest" in events[1].incident.message
    assert [event.step.step for event in events[2:-1]] == list(range(21, 61))
    assert weights_of(wire, "killed", 2) == weights_of(wire, "whole", 1)


def test_a_student_that_is_stopped_leaves_a_point_first(wire, tmp_path):
    events = []
    with student_of(wire, tmp_path) as (process, stub):
        training = stub.Train(resumable(wire, "drained"))
        for event in training:
            events.append(event)
            if event.step.step == 5:
                process.terminate()
                break
        with pytest.raises(grpc.RpcError) as raised:
            events.extend(training)
        assert process.wait(10) == 0
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    point = events[-1].resume_point
    assert point.step == events[-2].step.step
    resumed = list(wire.stub.Train(resumable(wire, "drained", 2, points=[point])))
    assert resumed[0].started.resumed_step == point.step
    list(wire.stub.Train(resumable(wire, "undrained")))
    assert weights_of(wire, "drained", 2) == weights_of(wire, "undrained", 1)


def test_a_training_leaves_a_point_when_it_is_asked_to(wire):
    def ask(run_id, fence):
        request = student_pb2.LeaveResumePointRequest(run_id=run_id, fence=fence)
        return wire.stub.LeaveResumePoint(request)

    points = []
    training = wire.stub.Train(resumable(wire, "asked-for-a-point"))
    for event in training:
        if event.step.step == 5:
            ask("asked-for-a-point", 1)
        if event.HasField("resume_point"):
            points.append(event.resume_point)
    assert len(points) == 1
    assert points[0].step >= 5
    for which in [("asked-for-a-point", 1), ("another", 1)]:
        with pytest.raises(grpc.RpcError) as raised:
            ask(*which)
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert which[0] in raised.value.details()


def test_a_student_whose_work_hangs_ends_itself_and_says_where(wire, tmp_path):
    # Whoever opens a pipe that nobody writes to waits for ever.
    pipe = wire.artifacts / "pipe.jsonl"
    os.mkfifo(pipe)
    rows = task_pb2.RowSource(uri=pipe.as_uri(), sha256="0" * 64)
    with student_of(wire, tmp_path, STUDENT_STALL_SECONDS="1") as (process, stub):
        training = stub.Train(wire.train_request("hanging", rows=rows))
        assert refusal(training, grpc.StatusCode.UNAVAILABLE)
        assert process.wait(20) == 1
        log = process.stderr.read()
    assert "Timeout" in log
    assert "read_rows" in log


def test_a_training_that_goes_on_is_not_taken_for_one_that_hangs(wire, tmp_path):
    with student_of(wire, tmp_path, STUDENT_STALL_SECONDS="2") as (_, stub):
        training = stub.Train(wire.train_request("lively", recipe__exact_steps=LONG))
        began = time.monotonic()
        for _ in training:
            if time.monotonic() - began > 5:
                break
        training.cancel()
        # Idle is not hanging either.
        time.sleep(3)
        assert not stub.GetDevice(student_pb2.GetDeviceRequest()).slot_holder
