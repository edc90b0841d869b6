"""A student taken home, loaded by plain transformers and PEFT in a process without Tutelage."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import torch
from conftest import LABELS, TEMPLATE, as_json, make_rows
from safetensors.torch import load_file, save_file

from tutelage_student import checkpoint, exportcheck
from tutelage_student.contract import student_pb2, task_pb2
from tutelage_student.errors import Code, StudentError
from tutelage_student.export import export
from tutelage_student.predict import Decoding, generate, score_labels
from tutelage_student.recipe import Recipe
from tutelage_student.task import Message, Task
from tutelage_student.train import fine_tune

# What a user has: a folder, transformers, and PEFT where it is an adapter.
PLAIN = """
import importlib.util, json, sys
import torch
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
assert importlib.util.find_spec("tutelage_student") is None
folder, base, template, labels, texts = json.loads(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(folder)
if base:
    from peft import PeftModel
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    model = PeftModel.from_pretrained(model, folder)
else:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
def score(prompt, label):
    ids = tokenizer(prompt)["input_ids"]
    answer = tokenizer(" " + label, add_special_tokens=False)["input_ids"]
    values = model(torch.tensor([ids + answer])).logits[0].float().log_softmax(-1)
    return sum(float(values[len(ids) - 1 + at, token]) for at, token in enumerate(answer))
def greedy(prompt):
    ids = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**ids)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True).strip()
with torch.no_grad():
    prompts = [template.replace("{input}", text) for text in texts]
    scores = [torch.tensor([score(p, l) for l in labels]).log_softmax(-1).tolist() for p in prompts]
    print(json.dumps({"scores": scores, "greedy": [greedy(p) for p in prompts]}))
"""


def ask_plainly(folder, base, task, rows, tmp_path):
    """The answers of a fresh process outside of our tree."""
    texts = [row.input for row in rows]
    question = json.dumps([str(folder), base and str(base), TEMPLATE, list(task.labels), texts])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN, question],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def trained(folder, model, task, recipe=None):
    recipe = recipe or Recipe(exact_steps=30, learning_rate=1e-2)
    student = fine_tune(model, make_rows(32), task, recipe, seed=1)
    checkpoint.save(folder, model, student, recipe, task, 1, {"run_id": "r"})
    return student.weights


@pytest.mark.parametrize(
    ("form", "method", "include_base"),
    [
        ("adapter", "lora", True),
        ("adapter", "lora", False),
        ("merged", "lora", False),
        ("merged", "full", False),
    ],
)
def test_a_fresh_process_loads_it_and_answers_as_the_student(
    model, model_folder, task, tmp_path, form, method, include_base
):
    rate = 1e-2 if method == "lora" else 1e-3
    recipe = Recipe(method=method, exact_steps=30, learning_rate=rate)
    weights = trained(tmp_path / "c", model, task, recipe)
    rows = make_rows(8, seed=3)
    out = tmp_path / "out"
    result = export(
        out, model, tmp_path / "c", weights, form, task, rows, include_base=include_base
    )
    assert result.check.passed
    assert result.check.rows == 8
    assert all(one.max_log_probability_difference < 1e-3 for one in result.check.comparisons)
    names = {file.name for file in result.files}
    weight_file = "adapter_model.safetensors" if form == "adapter" else "model.safetensors"
    assert {weight_file, "tokenizer.json", "chat_template.jinja", "generation_config.json"} <= names
    assert ("base/model.safetensors" in names) is include_base
    assert result.dtype == "float32"

    shutil.move(out, tmp_path / "elsewhere")
    home = tmp_path / "elsewhere"
    base = None
    if form == "adapter":
        base = home / "base" if include_base else model_folder
    answers = ask_plainly(home, base, task, rows, tmp_path)
    ours = score_labels(model, rows, task, weights)
    for values, prediction in zip(answers["scores"], ours, strict=True):
        expected = list(prediction.label_log_probabilities.values())
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-3)
    written = generate(model, rows, task, weights, Decoding(max_new_tokens=16))
    assert answers["greedy"] == [one.text for one in written]


def test_free_text_is_compared_token_by_token(model, task, tmp_path):
    free = Task(TEMPLATE, (), 8)
    weights = trained(tmp_path / "c", model, task)
    result = export(
        tmp_path / "out", model, tmp_path / "c", weights, "merged", free, make_rows(4, seed=3)
    )
    assert result.check.passed
    assert [one.same_answers for one in result.check.comparisons] == [4, 4, 4]


def test_weights_that_answer_otherwise_are_not_offered(model, task, tmp_path, monkeypatch):
    """The check's own files are spoilt between writing and asking."""
    weights = trained(tmp_path / "c", model, task)
    load_files = exportcheck._load

    def spoil(folder: Path, *others):
        if folder != model.source.folder:
            state = load_file(folder / "model.safetensors")
            state["model.norm.weight"] *= 0.5
            save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
        return load_files(folder, *others)

    monkeypatch.setattr(exportcheck, "_load", spoil)
    out = tmp_path / "out"
    result = export(out, model, tmp_path / "c", weights, "merged", task, make_rows(8, seed=3))
    assert not result.check.passed
    assert [one.passed for one in result.check.comparisons] == [True, False, False]
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"c"}


def test_an_interrupted_export_leaves_nothing_behind(model, task, tmp_path):
    weights = trained(tmp_path / "c", model, task)
    calls = 0

    def refuse():
        nonlocal calls
        calls += 1
        if calls == 4:
            raise StudentError(Code.FAILED_PRECONDITION, "fence: old")

    with pytest.raises(StudentError, match="fence"):
        export(
            tmp_path / "out",
            model,
            tmp_path / "c",
            weights,
            "merged",
            task,
            make_rows(8),
            pause=refuse,
        )
    assert {path.name for path in tmp_path.iterdir()} == {"c"}


def test_a_student_of_all_weights_has_no_adapter(model, task, tmp_path):
    weights = trained(tmp_path / "c", model, task, Recipe(method="full", exact_steps=1))
    with pytest.raises(StudentError, match="form: the student has no adapter") as raised:
        export(tmp_path / "out", model, tmp_path / "c", weights, "adapter", task, make_rows(2))
    assert raised.value.code is Code.INVALID_ARGUMENT


def test_a_tie_is_the_same_answer_and_a_difference_is_not():
    known = {"a": exportcheck.Answer("x", {"x": -0.69, "y": -0.695})}
    tie = {"a": exportcheck.Answer("y", {"x": -0.695, "y": -0.69})}
    assert exportcheck.compare("student", known, "merged", tie, 0.01).passed
    assert not exportcheck.compare("student", known, "merged", tie, 0.001).passed
    sure = {"a": exportcheck.Answer("x", {"x": -0.145, "y": -2.0})}
    other = {"a": exportcheck.Answer("y", {"x": -2.0, "y": -0.145})}
    result = exportcheck.compare("student", sure, "merged", other, 0.01)
    assert (result.same_answers, result.passed) == (0, False)
    assert result.max_log_probability_difference == pytest.approx(1.855)


def test_an_export_over_the_wire(wire):
    saved = list(wire.stub.Train(wire.train_request("taken-home")))[-1].checkpoint
    folder = wire.artifacts / "runs/export-1/1/export"

    def request(**changes):
        fields = {
            "run_id": "export-1",
            "fence": 1,
            "model": wire.model,
            "checkpoint_uri": saved.uri,
            "form": student_pb2.EXPORT_FORM_MERGED,
            "task": task_pb2.Task(
                name="films",
                kind=task_pb2.TASK_KIND_CLASSIFICATION,
                prompt_template=TEMPLATE,
                labels=[task_pb2.Label(name=label) for label in LABELS],
            ),
            "rows": wire.publish([as_json(row) for row in make_rows(30, 4)], "check"),
            "check_rows": 6,
            "output_uri": folder.as_uri(),
        }
        return student_pb2.ExportCheckpointRequest(**{**fields, **changes})

    events = list(wire.stub.ExportCheckpoint(request()))
    assert [event.stage.number for event in events[:-1]] == [1, 2, 3]
    done = events[-1].exported
    assert done.check.passed
    assert done.check.rows == 6
    assert {path.name for path in folder.iterdir()} == {file.name for file in done.files}
    assert wire.stub.GetDevice(student_pb2.GetDeviceRequest()).slot_holder == ""

    for changes, code, message in [
        ({"form": 0}, grpc.StatusCode.INVALID_ARGUMENT, "form: not set"),
        ({"check_rows": 65}, grpc.StatusCode.INVALID_ARGUMENT, "check_rows: 65"),
        ({"fence": 0}, grpc.StatusCode.INVALID_ARGUMENT, "fence: 0"),
        ({"output_uri": "file:///etc/x"}, grpc.StatusCode.INVALID_ARGUMENT, "output_uri"),
        ({"checkpoint_uri": folder.as_uri()}, grpc.StatusCode.NOT_FOUND, "checkpoint_uri"),
    ]:
        with pytest.raises(grpc.RpcError) as raised:
            list(wire.stub.ExportCheckpoint(request(**changes)))
        assert raised.value.code() is code
        assert message in raised.value.details()


def test_a_conversation_is_checked_through_the_chat_template(model, task, tmp_path):
    weights = trained(tmp_path / "c", model, task)
    rows = [
        replace(row, input="", messages=(Message("user", row.input),)) for row in make_rows(4, 3)
    ]
    out = tmp_path / "out"
    result = export(out, model, tmp_path / "c", weights, "merged", task, rows)
    assert result.check.passed
    assert result.check.rows == 4
    assert not result.labels_end_with_eos
