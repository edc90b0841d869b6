"""Model references: from the name in a profile to a Hugging Face folder on this machine."""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tutelage_student.errors import Code, StudentError, invalid
from tutelage_student.files import sync_tree

FORMS = (
    "use package:module/file.gguf, file:/absolute/path (a Hugging Face folder or a .gguf) "
    "or hf:org/name@revision"
)
# What shapes a model's answers; anything else in a folder does not change its digest.
WEIGHT_FILES = (
    "*.safetensors",
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "chat_template*",
)


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine. `folder` is in Hugging Face's layout, `digest` is hexadecimal."""

    reference: str
    folder: Path
    digest: str


def resolve(reference: str, home: Path, allow_hub: bool = False) -> ResolvedModel:
    """Finds the model, dequantising a GGUF into `home`/models/<digest>/ the first time."""
    path = _locate(reference, allow_hub)
    if path.is_dir():
        return ResolvedModel(reference, path, _folder_digest(path))
    digest = file_sha256(path)
    return ResolvedModel(reference, _dequantised(path, home / "models" / digest), digest)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _locate(reference: str, allow_hub: bool) -> Path:
    scheme, _, rest = reference.partition(":")
    if not rest or scheme not in ("package", "file", "hf"):
        raise invalid("model", f"{reference!r} is not a model reference", FORMS)
    if scheme == "hf":
        return _hub_folder(reference, rest, allow_hub)
    path = Path(rest) if scheme == "file" else _package_file(reference, rest)
    if not path.is_absolute():
        raise invalid("model", f"{reference!r} is a relative path", FORMS)
    if not path.exists():
        raise StudentError(Code.NOT_FOUND, f"model: nothing at {path}; {FORMS}")
    if path.is_dir():
        if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
            raise invalid("model", f"{path} lacks config.json or *.safetensors", FORMS)
    elif path.suffix != ".gguf":
        raise invalid("model", f"{path} is neither a folder nor a .gguf", FORMS)
    return path.resolve()


def _package_file(reference: str, rest: str) -> Path:
    module, _, file = rest.partition("/")
    if not module.isidentifier() or not file or ".." in Path(file).parts:
        raise invalid("model", f"{reference!r} is not package:module/file.gguf", FORMS)
    # find_spec does not run the package: its code may need what we have not installed.
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise StudentError(
            Code.NOT_FOUND,
            f"model: Python package {module!r} is not installed; install models.txt",
        )
    return Path(spec.submodule_search_locations[0]).absolute() / file


def _hub_folder(reference: str, rest: str, allow_hub: bool) -> Path:
    repository, _, revision = rest.partition("@")
    if repository.count("/") != 1 or not revision:
        raise invalid("model", f"{reference!r} lacks an organisation or a revision", FORMS)
    if not allow_hub:
        raise StudentError(
            Code.FAILED_PRECONDITION,
            "model: this student may not reach a model hub; set STUDENT_ALLOW_HUB=true or use "
            "file: or package:",
        )
    from huggingface_hub import snapshot_download

    patterns = [*WEIGHT_FILES]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise StudentError(
            Code.UNAVAILABLE, f"model: cannot fetch {reference} from the hub: {error}"
        ) from error


def _folder_digest(folder: Path) -> str:
    names = sorted({path for pattern in WEIGHT_FILES for path in folder.glob(pattern)})
    total = hashlib.sha256()
    for path in names:
        total.update(f"{path.name} {file_sha256(path)}\n".encode())
    return total.hexdigest()


def _dequantised(gguf: Path, target: Path) -> Path:
    """Writes the GGUF as float32 safetensors beside config and tokenizer, once.

    Another process may do the same at the same time: each writes its own temporary folder, and
    whoever renames first wins.
    """
    if target.is_dir():
        return target
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{target.name[:12]}.", dir=target.parent))
    try:
        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        AutoTokenizer.from_pretrained(**source).save_pretrained(temporary)
        model = AutoModelForCausalLM.from_pretrained(**source)
        # transformers refuses to save a model that came from a GGUF, so its state and its config
        # are written one by one. Tied weights are stored once.
        seen: set[int] = set()
        state = {}
        for name, tensor in model.state_dict().items():
            if tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                state[name] = tensor.contiguous()
        save_file(state, str(temporary / "model.safetensors"), metadata={"format": "pt"})
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.config.save_pretrained(temporary)
        sync_tree(temporary)
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
