"""A fine-tuned student as files that plain transformers and PEFT load."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tutelage_student.checkpoint import read_manifest
from tutelage_student.errors import Code, StudentError, invalid
from tutelage_student.exportcheck import Check, check
from tutelage_student.files import json_text, make_folder, sync, sync_tree
from tutelage_student.lora import LoraWeights
from tutelage_student.model import Model
from tutelage_student.predict import DEFAULT_ANSWER_TOKENS
from tutelage_student.probe import Probe
from tutelage_student.reference import file_sha256
from tutelage_student.task import Encoder, Row, Task
from tutelage_student.weights import StudentWeights, Weights

Form = Literal["adapter", "merged"]
MANIFEST = "export.json"
FORMAT = "tutelage-export-1"
STAGES = ("writing the files", "asking the exported student", "done")
# Whatever a tokenizer may consist of; the pattern of a file decides, not the kind of tokenizer.
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab*",
    "merges.txt",
    "*.model",
)


@dataclass(frozen=True)
class ExportedFile:
    """One file; `name` is its path within the export."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Export:
    """What was written, or, where the check failed, what would have been."""

    files: tuple[ExportedFile, ...]
    sha256: str
    dtype: str
    includes_base: bool
    labels_end_with_eos: bool
    check: Check

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files)


def export(
    output: Path,
    model: Model,
    checkpoint: Path,
    weights: StudentWeights,
    form: Form,
    task: Task,
    rows: Sequence[Row],
    *,
    include_base: bool = False,
    pause: Callable[[], None] = lambda: None,
    stage: Callable[[int], None] = lambda number: None,
) -> Export:
    """Writes the student into `output` and has the check ask it.

    The folder gets its name only when all is written and the check has passed. pause: called
    between pieces of work; an exception from it leaves nothing behind.
    """
    if isinstance(weights, Probe):
        raise invalid(
            "checkpoint_uri",
            "a probe, which leaves the base weights as they are and holds none to load",
            "export a lora or full student",
        )
    lora = isinstance(weights, LoraWeights)
    if form == "adapter" and not lora:
        raise invalid("form", "the student has no adapter: all weights were trained", "use merged")
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    make_folder(temporary)
    try:
        stage(1)
        if form == "adapter":
            dtype = _write_adapter(temporary, model, checkpoint, include_base, pause)
        else:
            dtype = _write_merged(temporary, model, checkpoint, weights, pause)
        _copy(model.source.folder, temporary, TOKENIZER_FILES)
        (temporary / "generation_config.json").write_text(
            json_text(_generation_config(model, task))
        )
        stage(2)
        encoder = Encoder(model.tokenizer, task)
        checked = check(
            model,
            encoder,
            weights,
            checkpoint if lora else None,
            temporary if form == "merged" else None,
            rows,
            dtype,
            pause,
        )
        labels = encoder.label_ids(any(row.messages for row in rows))
        ends = bool(labels) and all(ids[-1] == encoder.eos_id for ids in labels)
        manifest = {
            "format": FORMAT,
            "form": form,
            "model": model.source.reference,
            "model_digest": model.source.digest,
            "dtype": dtype,
            "includes_base": include_base and form == "adapter",
            "task": asdict(task),
            "labels_end_with_eos": ends,
            "check": asdict(checked),
            "training": read_manifest(checkpoint, "checkpoint_uri"),
        }
        (temporary / MANIFEST).write_text(json_text(manifest))
        files = tuple(_files(temporary))
        total = hashlib.sha256()
        for file in files:
            total.update(f"{file.name} {file.sha256}\n".encode())
        result = Export(
            files,
            total.hexdigest(),
            dtype,
            include_base and form == "adapter",
            ends,
            checked,
        )
        if checked.passed:
            pause()
            sync_tree(temporary)
            shutil.rmtree(output, ignore_errors=True)
            temporary.rename(output)
            sync(output.parent)
        stage(3)
        return result
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_adapter(
    folder: Path, model: Model, checkpoint: Path, include_base: bool, pause: Callable[[], None]
) -> str:
    shutil.copyfile(checkpoint / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    config = json.loads((checkpoint / "adapter_config.json").read_text())
    scheme, _, rest = model.source.reference.partition(":")
    if include_base:
        # PEFT looks there from the working directory; the card says how to be independent of it.
        config.update(base_model_name_or_path="base", revision=None)
    elif scheme == "hf":
        name, _, revision = rest.partition("@")
        config.update(base_model_name_or_path=name, revision=revision)
    else:
        config.update(base_model_name_or_path=model.source.reference, revision=None)
    (folder / "adapter_config.json").write_text(json_text(config))
    if include_base:
        (folder / "base").mkdir()
        patterns = ("*.safetensors", "*.safetensors.index.json", "config.json", *TOKENIZER_FILES)
        _copy(model.source.folder, folder / "base", patterns, pause)
    return _stored_dtype(folder / "adapter_model.safetensors")


def _write_merged(
    folder: Path, model: Model, checkpoint: Path, weights: Weights, pause: Callable[[], None]
) -> str:
    """Writes all weights under the base's names and in its number format, file by file."""
    base = model.source.folder
    config = json.loads((base / "config.json").read_text())
    if not isinstance(weights, LoraWeights):
        shutil.copyfile(checkpoint / "model.safetensors", folder / "model.safetensors")
        dtype = _stored_dtype(folder / "model.safetensors")
    else:
        missing = set(weights.adapters)
        dtype = ""
        for path in sorted(base.glob("*.safetensors")):
            state = load_file(path)
            for name in sorted(missing):
                key = f"{name}.weight"
                if key in state:
                    adapter = weights.adapters[name]
                    change = (adapter.up.data @ adapter.down.data).mul_(adapter.scale).cpu()
                    state[key] = (state[key].float() + change).to(state[key].dtype)
                    dtype = str(state[key].dtype).removeprefix("torch.")
                    missing.discard(name)
            save_file(state, str(folder / path.name), metadata={"format": "pt"})
            pause()
        if missing:
            raise StudentError(
                Code.FAILED_PRECONDITION,
                f"form: the base's files hold no {min(missing)}.weight to merge into; "
                "export the adapter instead",
            )
        _copy(base, folder, ("*.safetensors.index.json",))
    for name in ("dtype", "torch_dtype"):
        config.pop(name, None)
    (folder / "config.json").write_text(json_text({**config, "dtype": dtype}))
    return dtype


def _generation_config(model: Model, task: Task) -> dict[str, Any]:
    """Greedy answers that end as the student was taught to end them."""
    eos = int(model.tokenizer.eos_token_id)
    pad = model.tokenizer.pad_token_id
    return {
        "do_sample": False,
        "eos_token_id": eos,
        "pad_token_id": eos if pad is None else int(pad),
        "max_new_tokens": task.max_answer_tokens or DEFAULT_ANSWER_TOKENS,
    }


def _stored_dtype(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        dtype: torch.dtype = file.get_tensor(next(iter(file.keys()))).dtype
    return str(dtype).removeprefix("torch.")


def _copy(
    source: Path,
    target: Path,
    patterns: Sequence[str],
    pause: Callable[[], None] = lambda: None,
) -> None:
    for path in sorted({path for pattern in patterns for path in source.glob(pattern)}):
        if path.is_file():
            shutil.copyfile(path, target / path.name)
            pause()


def _files(folder: Path) -> list[ExportedFile]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        ExportedFile(path.relative_to(folder).as_posix(), file_sha256(path), path.stat().st_size)
        for path in paths
    ]
