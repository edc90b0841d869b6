"""Checkpoints on disk: PEFT's adapter format, plain weights or a probe, and a manifest."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tutelage_student.errors import Code, StudentError
from tutelage_student.files import json_text, make_folder, sync
from tutelage_student.full import FullWeights
from tutelage_student.lora import LoraWeights
from tutelage_student.model import Model
from tutelage_student.probe import Probe
from tutelage_student.recipe import Recipe
from tutelage_student.reference import file_sha256
from tutelage_student.task import Task
from tutelage_student.train import Student
from tutelage_student.weights import StudentWeights

MANIFEST = "checkpoint.json"
# By its name the training service knows a probe, which cannot be exported.
PROBE = "probe.safetensors"
FORMAT = "tutelage-checkpoint-1"


@dataclass(frozen=True)
class SavedCheckpoint:
    """What was written; `sha256` is over the files' names and digests."""

    folder: Path
    sha256: str
    size_bytes: int


def save(
    folder: Path,
    model: Model,
    student: Student,
    recipe: Recipe,
    task: Task,
    seed: int,
    origin: dict[str, Any],
    permitted: Callable[[], None] = lambda: None,
) -> SavedCheckpoint:
    """Writes the student into `folder`; the manifest last, so that it vouches for the rest.

    origin: what else the manifest records, e.g. run and fence. permitted: called before files get
    their names; an exception from it leaves nothing behind.
    """
    weights = student.weights
    is_new = not folder.exists()
    make_folder(folder)
    written: dict[str, Path] = {}

    def write(name: str, action: Callable[[Path], object]) -> None:
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        written[name] = temporary
        action(temporary)
        sync(temporary)

    try:
        if isinstance(weights, LoraWeights):
            tensors = adapter_tensors(weights)
            config = json_text(adapter_config(model, weights))
            write("adapter_model.safetensors", lambda path: _save_tensors(tensors, path))
            write("adapter_config.json", lambda path: path.write_text(config))
        elif isinstance(weights, Probe):
            write(PROBE, lambda path: _save_tensors(weights.tensors(), path))
        else:
            state = full_state(model, weights)
            network_config = model.network.config.to_json_string()
            write("model.safetensors", lambda path: _save_tensors(state, path))
            write("config.json", lambda path: path.write_text(network_config))
        digests = {name: file_sha256(path) for name, path in sorted(written.items())}
        manifest = json_text(
            {
                "format": FORMAT,
                "method": weights.method,
                "model": model.source.reference,
                "model_digest": model.source.digest,
                "base_dtype": str(model.dtype).removeprefix("torch."),
                # A probe leaves all layers as they are.
                "first_layer": len(model.layers)
                if isinstance(weights, Probe)
                else weights.first_layer,
                "recipe": asdict(recipe),
                "task": asdict(task),
                "seed": seed,
                "final_loss": student.final_loss,
                "trained_tokens": student.trained_tokens,
                "files": digests,
                **origin,
            }
        )
        write(MANIFEST, lambda path: path.write_text(manifest))
        permitted()
        for name, temporary in written.items():
            temporary.rename(folder / name)
        sync(folder)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)
        if is_new:
            # Goes only where nothing got its name.
            with suppress(OSError):
                folder.rmdir()
    total = hashlib.sha256()
    for name in sorted(written):
        total.update(f"{name} {file_sha256(folder / name)}\n".encode())
    size = sum((folder / name).stat().st_size for name in written)
    return SavedCheckpoint(folder, total.hexdigest(), size)


def read(folder: Path, model: Model, field: str) -> StudentWeights:
    """Reads a checkpoint for this model. Errors: NOT_FOUND, DATA_LOSS, INVALID_ARGUMENT."""
    manifest = read_manifest(folder, field)
    if manifest["model_digest"] != model.source.digest:
        raise StudentError(
            Code.INVALID_ARGUMENT,
            f"{field}: the checkpoint fits base weights {manifest['model_digest'][:12]} of "
            f"{manifest['model']}, not {model.source.digest[:12]}; name that model",
        )
    for name, digest in manifest["files"].items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != digest:
            raise StudentError(
                Code.DATA_LOSS, f"{field}: {name} is missing or altered; train again"
            )
    recipe = Recipe(**manifest["recipe"])
    weights: StudentWeights
    try:
        if manifest["method"] == "lora":
            tensors = load_file(folder / "adapter_model.safetensors")
            weights = LoraWeights(
                model, recipe.lora_rank, recipe.lora_alpha, 0.0, recipe.trained_layers
            )
            for name, adapter in weights.adapters.items():
                adapter.down.data.copy_(tensors[f"base_model.model.{name}.lora_A.weight"])
                adapter.up.data.copy_(tensors[f"base_model.model.{name}.lora_B.weight"])
            weights.refresh()
        elif manifest["method"] == "probe":
            weights = Probe(tuple(manifest["task"]["labels"]), **load_file(folder / PROBE))
        else:
            weights = FullWeights(model, recipe.trained_layers)
            weights.fill(load_file(folder / "model.safetensors"))
    except (KeyError, TypeError, SafetensorError) as error:
        raise StudentError(
            Code.DATA_LOSS, f"{field}: weights do not fit the model ({error}); train again"
        ) from error
    return weights


def read_manifest(folder: Path, field: str) -> dict[str, Any]:
    """The checkpoint's manifest. Errors: NOT_FOUND, DATA_LOSS."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise StudentError(
            Code.NOT_FOUND, f"{field}: no finished checkpoint there; give Checkpoint.uri"
        ) from error
    except ValueError as error:
        raise StudentError(
            Code.DATA_LOSS, f"{field}: {MANIFEST} is no JSON; train again"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StudentError(
            Code.DATA_LOSS, f"{field}: {MANIFEST} is not of format {FORMAT}; train again"
        )
    return manifest


def adapter_tensors(weights: LoraWeights) -> dict[str, torch.Tensor]:
    """The adapters under the names that PEFT gives them."""
    tensors = {}
    for name, adapter in weights.adapters.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = adapter.down.data.cpu().clone()
        tensors[f"base_model.model.{name}.lora_B.weight"] = adapter.up.data.cpu().clone()
    return tensors


def adapter_config(model: Model, weights: LoraWeights) -> dict[str, Any]:
    """PEFT's configuration of these adapters."""
    layers = list(range(weights.first_layer, len(model.layers))) if weights.first_layer else None
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.source.reference,
        "revision": model.source.digest,
        "r": weights.rank,
        "lora_alpha": weights.alpha,
        "lora_dropout": weights.dropout,
        "target_modules": sorted({name.rpartition(".")[2] for name in weights.adapters}),
        "layers_to_transform": layers,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }


def full_state(model: Model, weights: FullWeights) -> dict[str, torch.Tensor]:
    """All weights of the network with these in place, tied ones once."""
    with model.wearing(weights):
        return {
            name.replace(".base.", "."): parameter.data.cpu().clone()
            for name, parameter in model.network.named_parameters()
        }


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file(tensors, str(path), metadata={"format": "pt"})
