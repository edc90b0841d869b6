"""The student's settings: environment variables, checked once at start."""

import ipaddress
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting, with what it should be. Frozen after the start."""

    model_config = SettingsConfigDict(
        env_prefix="STUDENT_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    listen: str = Field("127.0.0.1:50056", description="loopback address and port, host:port")
    home: Path = Field(
        default=Path.home() / ".tutelage",
        validation_alias="TUTELAGE_HOME",
        description="directory for converted models",
    )
    artifact_root: Path | None = Field(
        None,
        description="absolute directory that file:// URIs must lie below; default HOME/artifacts",
    )
    threads: int = Field(
        0, ge=0, le=1024, description="threads for the products; 0 takes all cores"
    )
    allow_hub: bool = Field(False, description="true to let hf: references reach the model hub")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda")
    base_dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="auto, bfloat16 or float32: format of frozen weights"
    )
    loaded_models: int = Field(2, ge=1, le=64, description="base models kept in memory, 1 to 64")
    checkpoint_cache_mb: int = Field(256, ge=0, description="memory for recent checkpoints, MB")
    activation_cache_mb: int = Field(1024, ge=0, description="memory for frozen layers' output, MB")
    stop_with_stdin: bool = Field(
        False, description="true to stop when standard input closes, as it does with the parent"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error"
    )

    @field_validator("listen")
    @classmethod
    def _loopback(cls, value: str) -> str:
        host, separator, port = value.rpartition(":")
        if not separator or not port.isdigit() or int(port) > 65_535:
            raise ValueError("is not host:port")
        bare = host.strip("[]")
        try:
            loopback = bare == "localhost" or ipaddress.ip_address(bare).is_loopback
        except ValueError as error:
            raise ValueError("its host is no IP address and not localhost") from error
        if not loopback:
            raise ValueError("is not a loopback address, and the student has no keys yet")
        return value

    @field_validator("home", "artifact_root")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("is not an absolute path")
        return value

    @property
    def artifacts(self) -> Path:
        """The artifact root, links followed."""
        return (self.artifact_root or self.home / "artifacts").resolve()

    @property
    def thread_count(self) -> int:
        """Threads for the products."""
        if self.threads:
            return self.threads
        # Only Linux says which cores are ours.
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1


class SettingsError(Exception):
    """Names each wrong variable and what it should be."""


def read_settings() -> Settings:
    """Reads the environment, or raises SettingsError."""
    try:
        return Settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0])
            key = "home" if name == "TUTELAGE_HOME" else name
            variable = "TUTELAGE_HOME" if key == "home" else f"STUDENT_{key.upper()}"
            field = Settings.model_fields.get(key)
            should = field.description if field else "a known setting"
            lines.append(f"{variable}: {problem['msg']}; should be {should}")
        raise SettingsError("\n".join(lines)) from error
