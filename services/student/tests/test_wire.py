"""The student through its real wire."""

import json
import threading
import time
from pathlib import Path

import grpc
import pytest
from conftest import as_json, make_rows, start_student
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tutelage_student.contract import student_pb2, student_pb2_grpc, task_pb2

LONG = 100_000


def refusal(call, code):
    """The message with which a call (or the reading of its stream) is refused."""
    with pytest.raises(grpc.RpcError) as raised:
        list(call()) if callable(call) else list(call)
    assert raised.value.code() is code, raised.value
    return raised.value.details()


def first_step(stream):
    """Reads up to the first step."""
    for event in stream:
        if event.WhichOneof("event") == "step":
            return event.step
    raise AssertionError("no step")


def wait_until_free(wire, seconds=5.0):
    """Waits for the slot and returns how long it took."""
    began = time.monotonic()
    while wire.stub.GetDevice(student_pb2.GetDeviceRequest()).slot_holder:
        assert time.monotonic() - began < seconds, "the slot was not freed"
        time.sleep(0.02)
    return time.monotonic() - began


def test_trains_then_answers_with_the_checkpoint(wire):
    events = list(wire.stub.Train(wire.train_request("learn", recipe__exact_steps=40)))
    assert events[0].started.rows == 64
    assert [event.step.step for event in events[1:-1]] == list(range(1, 41))
    result = events[-1].checkpoint
    assert result.final_loss < events[1].step.loss
    folder = wire.artifacts / "runs/learn/1"
    assert result.uri == folder.as_uri()
    assert {path.name for path in folder.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "checkpoint.json",
    }
    rows = make_rows(600, seed=3)
    request = wire.predict_request(
        result.uri,
        interactive=False,
        run_id="evaluate",
        fence=1,
        rows=wire.publish([as_json(row) for row in rows], "test"),
    )
    answers = [p for part in wire.stub.Predict(request) for p in part.predictions]
    assert [answer.row_id for answer in answers] == [row.id for row in rows]
    right = sum(a.text == row.output for a, row in zip(answers, rows, strict=True))
    assert right / len(rows) > 0.95
    assert {score.label for score in answers[0].label_scores} == {"positive", "negative"}


def test_a_whole_run_repeats_byte_for_byte(wire):
    results = []
    for name in ("once", "twice"):
        list(wire.stub.Train(wire.train_request(name, recipe__lora_dropout=0.1)))
        path = wire.artifacts / "runs" / name / "1/adapter_model.safetensors"
        results.append(path.read_bytes())
    assert results[0] == results[1]


def test_second_job_is_refused_and_cancel_frees_the_slot(wire):
    training = wire.stub.Train(wire.train_request("long", recipe__exact_steps=LONG))
    first_step(training)
    assert wire.stub.GetDevice(student_pb2.GetDeviceRequest()).slot_holder == "train long"
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "train long" in refusal(wire.stub.Train(wire.train_request("other")), code)
    hold = student_pb2.HoldSlotRequest(holder="teacher")
    refusal(wire.stub.HoldSlot(hold), code)
    batch = wire.predict_request(interactive=False, run_id="e", fence=1)
    refusal(wire.stub.Predict(batch), code)
    training.cancel()
    assert wait_until_free(wire) < 2
    held = wire.stub.HoldSlot(hold)
    next(held)
    assert wire.stub.GetDevice(student_pb2.GetDeviceRequest()).slot_holder == "teacher"
    refusal(wire.stub.Train(wire.train_request("other")), code)
    held.cancel()
    wait_until_free(wire)
    assert not (wire.artifacts / "runs/long/1").exists()


def test_interactive_predictions_slip_in_between_steps(wire):
    checkpoint = list(wire.stub.Train(wire.train_request("served")))[-1].checkpoint
    alone = list(wire.stub.Predict(wire.predict_request(checkpoint.uri)))
    training = wire.stub.Train(wire.train_request("busy", recipe__exact_steps=LONG))
    first_step(training)
    assert list(wire.stub.Predict(wire.predict_request(checkpoint.uri), timeout=10)) == alone
    base = list(wire.stub.Predict(wire.predict_request(), timeout=10))
    assert base != alone
    before = first_step(training).step
    assert first_step(training).step == before + 1
    training.cancel()
    wait_until_free(wire)


@pytest.mark.parametrize(
    "decoding",
    [
        student_pb2.Decoding(score_labels=True),
        student_pb2.Decoding(temperature=1.0, top_p=0.9, max_new_tokens=4, seed=3),
    ],
)
def test_rows_after_whole_messages_are_answered_as_in_an_undisturbed_call(wire, decoding):
    rows = wire.publish([as_json(row) for row in make_rows(600, seed=11)], "rest")
    request = wire.predict_request(
        interactive=False, run_id="whole", fence=1, rows=rows, decoding=decoding
    )
    whole = list(wire.stub.Predict(request))
    wait_until_free(wire)
    request.run_id, request.skip_rows = "rest", len(whole[0].predictions)
    assert list(wire.stub.Predict(request)) == whole[1:]


def test_cancel_stops_a_long_generation(wire):
    rows = wire.publish([as_json(row) for row in make_rows(2000, seed=5)], "many")
    request = wire.predict_request(interactive=False, run_id="gen", fence=1, rows=rows)
    request.decoding.CopyFrom(student_pb2.Decoding(max_new_tokens=30))
    stream = wire.stub.Predict(request)
    next(stream)
    stream.cancel()
    assert wait_until_free(wire) < 2


def test_an_old_fence_is_refused_and_a_new_one_ends_the_old_work(wire):
    code = grpc.StatusCode.FAILED_PRECONDITION
    training = wire.stub.Train(
        wire.train_request("fenced", 2, recipe__exact_steps=LONG), timeout=20
    )
    first_step(training)
    refused = refusal(wire.stub.Train(wire.train_request("fenced", 1)), code)
    assert "fence_is_old" in refused
    takeover = wire.train_request("fenced", 3)
    refusal(wire.stub.Train(takeover), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert "fence_is_old" in refusal(training, code)
    wait_until_free(wire)
    assert list(wire.stub.Train(takeover))[-1].checkpoint.uri.endswith("/fenced/3")
    assert not (wire.artifacts / "runs/fenced/2").exists()


def test_rows_are_checked_and_chosen(wire):
    rows = make_rows(8)
    records = [as_json(row) for row in rows]
    records[3]["root_row_id"] = rows[0].id
    records[4]["split"] = "test"
    source = wire.publish(records, "chosen")
    source.split = task_pb2.SPLIT_TRAIN
    source.exclude_root_row_ids.append(rows[0].id)
    request = wire.train_request("chosen", rows=source, recipe__exact_steps=1)
    assert next(wire.stub.Train(request)).started.rows == 5
    wait_until_free(wire)
    source.sha256 = "0" * 64
    wrong = wire.train_request("chosen", rows=source)
    assert "rows.sha256" in refusal(wire.stub.Train(wrong), grpc.StatusCode.DATA_LOSS)


def test_too_long_rows_are_named(wire):
    rows = [*[as_json(row) for row in make_rows(4)], {"id": "x", "input": "good " * 300}]
    source = wire.publish(rows, "long")
    started = next(
        wire.stub.Train(wire.train_request("toolong", rows=source, recipe__exact_steps=1))
    ).started
    assert list(started.too_long_row_ids) == ["x"]
    wait_until_free(wire)
    request = wire.predict_request(rows=source)
    answers = next(wire.stub.Predict(request)).predictions
    assert [answer.too_long for answer in answers] == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("run_id", {"run_id": ""}),
        ("fence", {"fence": 0}),
        ("model", {"model": "gpt"}),
        ("model", {"model": "file:relative"}),
        ("recipe.method", {"recipe__method": 0}),
        ("recipe.lora_rank", {"recipe__lora_rank": 0}),
        ("recipe.trained_layers", {"recipe__trained_layers": 3}),
        ("task.prompt_template", {"task": task_pb2.Task(prompt_template="no place")}),
        ("output_uri", {"output_uri": "file:///tmp/elsewhere"}),
        ("output_uri", {"output_uri": "s3://bucket/x"}),
        ("rows.uri", {"rows": task_pb2.RowSource(uri="file:///etc/passwd", sha256="0" * 64)}),
        ("rows.sha256", {"rows": task_pb2.RowSource(uri="file:///x")}),
    ],
)
def test_invalid_arguments_name_the_field_and_the_fix(wire, field, changes):
    request = wire.train_request("invalid", **changes)
    message = refusal(wire.stub.Train(request), grpc.StatusCode.INVALID_ARGUMENT)
    assert message.startswith(f"{field}: ")
    assert "; " in message
    wait_until_free(wire)


def test_a_bad_line_is_named(wire):
    path = wire.artifacts / "bad.jsonl"
    path.write_text('{"id":"a","input":"x","output":"positive"}\n{"id":3}\n')
    import hashlib

    source = task_pb2.RowSource(
        uri=path.as_uri(), sha256=hashlib.sha256(path.read_bytes()).hexdigest()
    )
    request = wire.train_request("bad", rows=source)
    message = refusal(wire.stub.Train(request), grpc.StatusCode.INVALID_ARGUMENT)
    assert message.startswith("rows: line 2: ")
    wait_until_free(wire)


def test_resolves_a_model(wire):
    answer = wire.stub.ResolveModel(student_pb2.ResolveModelRequest(model=wire.model))
    assert len(answer.model_digest) == 64
    assert answer.context_tokens == 128
    assert answer.parameters > 50_000
    device = wire.stub.GetDevice(student_pb2.GetDeviceRequest())
    assert device.device == "cpu"
    assert list(device.loaded_models) == [wire.model]
    with pytest.raises(grpc.RpcError) as raised:
        wire.stub.ResolveModel(student_pb2.ResolveModelRequest(model="hf:a/b@main"))
    assert "STUDENT_ALLOW_HUB" in raised.value.details()


def test_health_and_reflection(wire):
    name = "tutelage.student.v1.StudentService"
    health = health_pb2_grpc.HealthStub(wire.channel)
    status = health.Check(health_pb2.HealthCheckRequest(service=name)).status
    assert status == health_pb2.HealthCheckResponse.SERVING
    assert name in ProtoReflectionDescriptorDatabase(wire.channel).get_services()


def test_sigterm_stops_a_job_within_a_step(wire, model_folder: Path, tmp_path: Path):
    process, port = start_student(wire.artifacts, tmp_path)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        from tutelage_student.contract import student_pb2_grpc

        stub = student_pb2_grpc.StudentServiceStub(channel)
        training = stub.Train(wire.train_request("stopped", recipe__exact_steps=LONG))
        first_step(training)
        errors = []
        reader = threading.Thread(
            target=lambda: errors.append(refusal(training, grpc.StatusCode.UNAVAILABLE))
        )
        reader.start()
        process.terminate()
        assert process.wait(10) == 0
        reader.join(5)
    assert "stopping" in errors[0]
    lines = [json.loads(line) for line in process.stderr]
    assert all("Text:" not in json.dumps(line) for line in lines)


def test_sigterm_ends_whoever_holds_the_slot_with_a_reason(wire, tmp_path: Path):
    process, port = start_student(wire.artifacts, tmp_path)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = student_pb2_grpc.StudentServiceStub(channel)
        held = stub.HoldSlot(student_pb2.HoldSlotRequest(holder="teacher"))
        next(held)
        process.terminate()
        assert "stopping" in refusal(held, grpc.StatusCode.UNAVAILABLE)
        assert process.wait(10) == 0


def test_a_student_that_is_told_so_ends_with_its_parent(tmp_path):
    process, _ = start_student(
        tmp_path / "artifacts", tmp_path / "home", STUDENT_STOP_WITH_STDIN="true"
    )
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(20) == 0


def test_every_call_but_health_needs_the_token_where_there_is_one(wire, tmp_path):
    token = "0123456789abcdef"
    process, port = start_student(
        wire.artifacts, tmp_path, TUTELAGE_TOKEN=token, STUDENT_LISTEN="0.0.0.0:0"
    )
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    try:
        stub = student_pb2_grpc.StudentServiceStub(channel)
        device = student_pb2.GetDeviceRequest()
        for metadata in [(), (("authorization", "Bearer another-0123456789"),)]:
            for call in [
                lambda given=metadata: [stub.GetDevice(device, metadata=given)],
                lambda given=metadata: stub.Train(wire.train_request("t"), metadata=given),
            ]:
                message = refusal(call, grpc.StatusCode.UNAUTHENTICATED)
                assert "token" in message
                assert token not in message
        good = (("authorization", f"Bearer {token}"),)
        assert stub.GetDevice(device, metadata=good).device == "cpu"
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        channel.close()
        process.terminate()
        assert process.wait(20) == 0
