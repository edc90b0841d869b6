import errno
import json
import os

import peft
import pytest
import torch
from conftest import make_rows
from transformers import AutoModelForCausalLM

from tutelage_student import checkpoint
from tutelage_student.errors import Code, StudentError
from tutelage_student.files import disk_fault
from tutelage_student.predict import score_labels
from tutelage_student.recipe import Recipe
from tutelage_student.train import fine_tune


def save(folder, model, task, recipe):
    student = fine_tune(model, make_rows(16), task, recipe, seed=1)
    return student, checkpoint.save(folder, model, student, recipe, task, 1, {"run_id": "r"})


def plain_logits(network, ids):
    with torch.inference_mode():
        return network(ids).logits


def own_logits(model, weights, ids):
    _, positions, layout = model.packed([ids[0].tolist()])
    with torch.inference_mode(), model.wearing(weights):
        return model.logits(model.hidden(layout, positions, ids=ids[0]))[None]


@pytest.mark.parametrize("layers", [0, 1])
def test_plain_transformers_and_peft_read_an_adapter(model, model_folder, task, tmp_path, layers):
    recipe = Recipe(exact_steps=5, trained_layers=layers, learning_rate=1e-2)
    student, saved = save(tmp_path / "out", model, task, recipe)
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, str(saved.folder))
    ids = torch.tensor([model.tokenizer("Text: the film was good\nSentiment:")["input_ids"]])
    ours = own_logits(model, student.weights, ids)
    torch.testing.assert_close(plain_logits(theirs, ids), ours, rtol=1e-4, atol=1e-4)
    assert (own_logits(model, None, ids) - ours).abs().max() > 0.01


def test_plain_transformers_reads_full_weights(model, task, tmp_path):
    student, saved = save(tmp_path / "out", model, task, Recipe(method="full", exact_steps=3))
    theirs = AutoModelForCausalLM.from_pretrained(saved.folder, dtype=torch.float32)
    ids = torch.tensor([model.tokenizer("Text: the film was good\nSentiment:")["input_ids"]])
    ours = own_logits(model, student.weights, ids)
    torch.testing.assert_close(plain_logits(theirs, ids), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_reads_back_what_it_wrote(model, task, tmp_path, method):
    student, saved = save(tmp_path / "out", model, task, Recipe(method=method, exact_steps=3))
    again = checkpoint.read(saved.folder, model, "checkpoint_uri")
    rows = make_rows(6, seed=2)
    assert score_labels(model, rows, task, again) == score_labels(
        model, rows, task, student.weights
    )
    manifest = json.loads((saved.folder / "checkpoint.json").read_text())
    assert manifest["run_id"] == "r"
    assert manifest["model_digest"] == model.source.digest
    assert {path.name for path in saved.folder.iterdir()} == {*manifest["files"], "checkpoint.json"}


def test_altered_or_foreign_weights_are_refused(model, task, tmp_path):
    _, saved = save(tmp_path / "out", model, task, Recipe(exact_steps=1))
    weights = saved.folder / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(StudentError, match="altered") as raised:
        checkpoint.read(saved.folder, model, "checkpoint_uri")
    assert raised.value.code is Code.DATA_LOSS
    with pytest.raises(StudentError, match="no finished checkpoint") as raised:
        checkpoint.read(tmp_path, model, "checkpoint_uri")
    assert raised.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(
    ("number", "name"), [(errno.ENOSPC, "disk_full"), (errno.EROFS, "disk_read_only")]
)
def test_a_disk_that_cannot_be_written_has_a_name_and_keeps_nothing(
    model, task, tmp_path, monkeypatch, number, name
):
    student = fine_tune(model, make_rows(8), task, Recipe(exact_steps=1), seed=1)
    synced = []

    def fail_at_the_second(path):
        synced.append(path)
        if len(synced) == 2:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint, "sync", fail_at_the_second)
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        checkpoint.save(tmp_path / "out", model, student, Recipe(), task, 1, {})
    assert len(synced) == 2
    assert disk_fault(raised.value).message.startswith(f"{name}: ")
    assert list(tmp_path.iterdir()) == []
    assert disk_fault(ValueError("another")) is None


def test_a_refused_save_leaves_nothing_behind(model, task, tmp_path):
    student = fine_tune(model, make_rows(8), task, Recipe(exact_steps=1), seed=1)

    def refuse():
        raise StudentError(Code.FAILED_PRECONDITION, "fence: old")

    with pytest.raises(StudentError, match="fence"):
        checkpoint.save(tmp_path, model, student, Recipe(), task, 1, {}, refuse)
    assert list(tmp_path.iterdir()) == []
