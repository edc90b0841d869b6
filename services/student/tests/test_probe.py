"""The probe: solved to its end, kept, read back and asked, in the core and through the wire."""

import json
import math
import random

import grpc
import pytest
import torch
from conftest import LABELS, as_json, make_rows, wire_task
from test_wire import refusal, wait_until_free

from tutelage_student import checkpoint
from tutelage_student.contract import student_pb2, task_pb2
from tutelage_student.errors import StudentError
from tutelage_student.export import export
from tutelage_student.lora import LoraWeights
from tutelage_student.predict import Decoding, generate, score_labels
from tutelage_student.probe import features
from tutelage_student.probefit import fit_probe, solve, standardisation
from tutelage_student.questions import Question
from tutelage_student.recipe import Recipe
from tutelage_student.task import Encoder, Message, Row, Task

PROBE = Recipe(method="probe", lora_rank=0, lora_alpha=0)


def problem(rows=60, hidden=40, classes=3, seed=0):
    """Features that classes shift a little, so that the classes overlap."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(rows) % classes
    x = torch.randn(rows, hidden, generator=generator, dtype=torch.float64)
    x[torch.arange(rows), targets] += 1.0
    return x, targets


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("rows", [6, 60, 400])
def test_the_solution_is_where_the_gradient_of_the_objective_is_zero(rows, classes):
    x, targets = problem(rows, classes=classes)
    solution = solve(x, targets, classes)
    probabilities = (x @ solution.weight.T + solution.bias).softmax(-1)
    error = probabilities - torch.nn.functional.one_hot(targets, classes)
    # The gradient by hand: scikit-learn's C = 1, whose one weight vector for two classes is the
    # difference of ours.
    factor = 2.0 if classes == 2 else 1.0
    assert (error.T @ x + factor * solution.weight).abs().max() < 1e-6
    assert error.sum(0).abs().max() < 1e-6
    assert float(solution.bias.sum()) == pytest.approx(0, abs=1e-12)
    expected = -probabilities[torch.arange(rows), targets].log().mean()
    assert solution.loss == pytest.approx(float(expected))


@pytest.mark.parametrize("classes", [2, 4])
def test_agrees_with_scikit_learn_where_it_is_installed(classes):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, targets = problem(200, classes=classes)
    theirs = linear_model.LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
    theirs.fit(x.numpy(), targets.numpy())
    solution = solve(x, targets, classes)
    ours = (x @ solution.weight.T + solution.bias).softmax(-1)
    expected = torch.from_numpy(theirs.predict_proba(x.numpy()))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_features_are_the_last_hidden_state_of_the_prompts_last_token(model, task):
    rows = [*make_rows(3), Row("chat", messages=(Message("user", "the film was good"),))]
    encoder = Encoder(model.tokenizer, task)
    prompts = [tuple(encoder.prompt(row)) for row in rows]
    got = features(model, [Question(at, rows[at], prompts[at]) for at in range(len(rows))])
    model.network.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            expected = [
                model.network.model(torch.tensor([prompt])).last_hidden_state[0, -1]
                for prompt in prompts
            ]
    finally:
        model.network.set_attn_implementation("tutelage_packed")
    torch.testing.assert_close(got, torch.stack(expected).double(), rtol=1e-4, atol=1e-4)


def test_a_feature_that_never_changes_says_nothing():
    seen = torch.tensor([[0.1, 1.0], [0.1, 3.0], [0.1, 8.0]], dtype=torch.float64)
    mean, scale = standardisation(seen)
    assert scale[0] == 1
    x = (seen - mean) / scale
    assert x[:, 0].abs().max() < 1e-15
    assert float(x[:, 1].std(correction=0)) == pytest.approx(1)


def test_learns_what_one_word_decides_and_leaves_the_base_as_it_was(model, task):
    before = score_labels(model, make_rows(8, 1), task)
    student = fit_probe(model, make_rows(64), task)
    rows = make_rows(200, seed=8)
    answers = score_labels(model, rows, task, student.weights)
    right = sum(a.text == row.output for a, row in zip(answers, rows, strict=True))
    assert right / len(rows) > 0.95
    for answer in answers:
        assert sum(map(math.exp, answer.label_log_probabilities.values())) == pytest.approx(1)
        assert answer.log_probability == max(answer.label_log_probabilities.values())
    assert model.worn is None
    assert score_labels(model, make_rows(8, 1), task) == before
    assert student.final_loss < math.log(2)
    assert student.weights.trainable_parameters == 2 * 65


def test_labels_are_answered_in_the_tasks_order(model, task):
    student = fit_probe(model, make_rows(32), task)
    turned = Task(task.prompt_template, LABELS[::-1])
    for one, other in zip(
        score_labels(model, make_rows(9, 1), task, student.weights),
        score_labels(model, make_rows(9, 1), turned, student.weights),
        strict=True,
    ):
        assert one.label_log_probabilities == other.label_log_probabilities
        assert list(other.label_log_probabilities) == list(LABELS[::-1])
    third = Task(task.prompt_template, (*LABELS, "mixed"))
    with pytest.raises(StudentError, match=r"^task.labels: "):
        score_labels(model, make_rows(1), third, student.weights)


def test_a_label_without_a_row_is_unlikely_and_never_the_answer(model, task):
    third = Task(task.prompt_template, ("mixed", *LABELS))
    student = fit_probe(model, make_rows(32), third)
    two = score_labels(model, make_rows(50, 1), task, fit_probe(model, make_rows(32), task).weights)
    three = score_labels(model, make_rows(50, 1), third, student.weights)
    assert [answer.text for answer in three] == [answer.text for answer in two]
    assert all(math.exp(answer.label_log_probabilities["mixed"]) < 1 / 32 for answer in three)
    alone = fit_probe(model, [row for row in make_rows(8) if row.output == "positive"], task)
    assert {a.text for a in score_labels(model, make_rows(9, 1), task, alone.weights)} == {
        "positive"
    }


def test_neither_a_repetition_nor_another_order_of_the_rows_changes_a_bit(model, task):
    rows = make_rows(50)
    mixed = random.Random(1).sample(rows, len(rows))
    first, *others = (fit_probe(model, given, task).weights for given in (rows, rows, mixed))
    for other in others:
        for name, tensor in first.tensors().items():
            assert torch.equal(tensor, other.tensors()[name]), name


def test_reads_back_what_it_wrote(model, task, tmp_path):
    student = fit_probe(model, make_rows(16), task)
    saved = checkpoint.save(tmp_path / "out", model, student, PROBE, task, 1, {"run_id": "r"})
    again = checkpoint.read(saved.folder, model, "checkpoint_uri")
    rows = make_rows(20, seed=2)
    assert score_labels(model, rows, task, again) == score_labels(
        model, rows, task, student.weights
    )
    manifest = json.loads((saved.folder / "checkpoint.json").read_text())
    assert manifest["method"] == "probe"
    assert list(manifest["files"]) == ["probe.safetensors"]
    assert again.size_bytes == student.weights.size_bytes > 0
    path = saved.folder / "probe.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(StudentError, match="altered"):
        checkpoint.read(saved.folder, model, "checkpoint_uri")


def test_says_what_it_cannot_do(model, task, tmp_path):
    with pytest.raises(StudentError, match=r"^recipe.method: .*name task.labels"):
        fit_probe(model, make_rows(4), Task(task.prompt_template))
    with pytest.raises(StudentError, match=r"^rows: row 'x' .*none of task.labels"):
        fit_probe(model, [*make_rows(4), Row("x", "the film", "mixed")], task)
    with pytest.raises(StudentError, match=r"^rows: none to train on"):
        fit_probe(model, [Row("x", "good " * 300, "positive")], task)
    with pytest.raises(StudentError, match=r"^start_checkpoint_uri: holds other weights"):
        fit_probe(model, make_rows(4), task, start=LoraWeights(model, 4, 8, 0.0, 0))
    student = fit_probe(model, make_rows(4), task)
    with pytest.raises(StudentError, match=r"^decoding.score_labels: "):
        generate(model, make_rows(1), task, student.weights, Decoding())
    with pytest.raises(StudentError, match=r"^checkpoint_uri: a probe"):
        export(tmp_path / "e", model, tmp_path, student.weights, "merged", task, make_rows(2))
    assert list(tmp_path.iterdir()) == []


def test_goes_on_from_a_probe_to_the_same_solution(model, task):
    student = fit_probe(model, make_rows(16), task)
    again = fit_probe(model, make_rows(16), task, start=student.weights)
    assert torch.equal(again.weights.weight, student.weights.weight)


def test_may_be_ended_between_batches_and_in_the_solver(model, task):
    class Stopped(Exception):
        pass

    calls = []

    def count():
        calls.append(None)

    rows = make_rows(300)
    fit_probe(model, rows, task, pause=count)
    total = len(calls)
    assert total >= 3
    for last in (1, total):
        calls.clear()

        def stop(last=last):
            calls.append(None)
            if len(calls) == last:
                raise Stopped

        with pytest.raises(Stopped):
            fit_probe(model, rows, task, pause=stop)
        assert model.worn is None


def probe_request(wire, run_id, **changes):
    return wire.train_request(
        run_id,
        recipe__method=student_pb2.TUNING_METHOD_PROBE,
        recipe__lora_rank=0,
        recipe__lora_alpha=0,
        **changes,
    )


def test_a_probe_is_trained_and_asked_through_the_wire(wire):
    rows = [*[as_json(row) for row in make_rows(64)], {"id": "x", "input": "good " * 300}]
    events = list(wire.stub.Train(probe_request(wire, "probe", rows=wire.publish(rows, "p"))))
    assert [event.WhichOneof("event") for event in events] == ["started", "step", "checkpoint"]
    started, step, result = events[0].started, events[1].step, events[2].checkpoint
    assert (started.rows, started.total_steps, list(started.too_long_row_ids)) == (64, 1, ["x"])
    assert (step.step, step.total_steps) == (1, 1)
    assert step.loss == result.final_loss < math.log(2)
    names = {path.name for path in (wire.artifacts / "runs/probe/1").iterdir()}
    assert names == {"probe.safetensors", "checkpoint.json"}
    test = make_rows(600, seed=3)
    request = wire.predict_request(
        result.uri,
        interactive=False,
        run_id="evaluate-probe",
        fence=1,
        rows=wire.publish([as_json(row) for row in test], "probed"),
    )
    answers = [p for part in wire.stub.Predict(request) for p in part.predictions]
    right = sum(a.text == row.output for a, row in zip(answers, test, strict=True))
    assert right / len(test) > 0.95
    assert [score.label for score in answers[0].label_scores] == list(LABELS)
    written = wire.predict_request(result.uri, decoding=student_pb2.Decoding())
    code = grpc.StatusCode.INVALID_ARGUMENT
    assert "decoding.score_labels" in refusal(wire.stub.Predict(written), code)


def test_a_probe_needs_labels_and_starts_from_no_other_weights(wire):
    code = grpc.StatusCode.INVALID_ARGUMENT
    free = wire_task()
    del free.labels[:]
    free.kind = task_pb2.TASK_KIND_TEXT
    message = refusal(wire.stub.Train(probe_request(wire, "free", task=free)), code)
    assert message.startswith("recipe.method: ")
    wait_until_free(wire)
    lora = list(wire.stub.Train(wire.train_request("adapter")))[-1].checkpoint.uri
    probe = list(wire.stub.Train(probe_request(wire, "first")))[-1].checkpoint.uri
    for request in (
        probe_request(wire, "second", start_checkpoint_uri=lora),
        wire.train_request("third", start_checkpoint_uri=probe),
    ):
        message = refusal(wire.stub.Train(request), code)
        assert message.startswith("start_checkpoint_uri: ")
        wait_until_free(wire)
