"""The student's settings: environment variables, checked once at start."""

import ipaddress
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting, with what it should be. Frozen after the start."""

    model_config = SettingsConfigDict(
        env_prefix="STUDENT_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    listen: str = Field(
        "127.0.0.1:50056",
        description="host:port; beyond loopback only with TUTELAGE_TOKEN or TUTELAGE_TOKEN_FILE",
    )
    token: SecretStr | None = Field(
        None,
        validation_alias="TUTELAGE_TOKEN",
        description="16 or more visible ASCII characters that every call must show",
    )
    token_file: Path | None = Field(
        None,
        validation_alias="TUTELAGE_TOKEN_FILE",
        description="a file that holds the token, instead of TUTELAGE_TOKEN",
    )
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
    resume_seconds: float = Field(
        60, ge=0, description="seconds between a training's resume points, 0 for none by time"
    )
    resume_steps: int = Field(
        0, ge=0, description="steps between a training's resume points, 0 for none by steps"
    )
    stall_seconds: float = Field(
        300, ge=0, description="seconds without progress after which the process ends, 0 for never"
    )
    stop_with_stdin: bool = Field(
        False, description="true to stop when standard input closes, as it does with the parent"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error"
    )

    @field_validator("token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _check_token(value.get_secret_value())
        return value

    @field_validator("token_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                text = value.read_text(encoding="ascii", errors="replace")
            except OSError as error:
                raise ValueError(f"{value} cannot be read ({error.strerror})") from error
            _check_token(text.strip())
        return value

    @model_validator(mode="after")
    def _guarded(self) -> "Settings":
        if self.token is not None and self.token_file is not None:
            raise ValueError("TUTELAGE_TOKEN and TUTELAGE_TOKEN_FILE are both set; set one of them")
        if self.shared_token is None and not _is_loopback(self.listen):
            raise ValueError(
                f"STUDENT_LISTEN: {self.listen} is beyond loopback; should be a loopback address, "
                "or set TUTELAGE_TOKEN or TUTELAGE_TOKEN_FILE"
            )
        return self

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        _, separator, port = value.rpartition(":")
        if not separator or not port.isdigit() or int(port) > 65_535:
            raise ValueError("is not host:port")
        try:
            _is_loopback(value)
        except ValueError as error:
            raise ValueError("its host is no IP address and not localhost") from error
        return value

    @field_validator("home", "artifact_root")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("is not an absolute path")
        return value

    @property
    def shared_token(self) -> str | None:
        """What every call must show; None where nobody beyond this machine can call."""
        if self.token is not None:
            return self.token.get_secret_value()
        return self.token_file.read_text().strip() if self.token_file else None

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


def _is_loopback(listen: str) -> bool:
    bare = listen.rpartition(":")[0].strip("[]")
    return bare == "localhost" or ipaddress.ip_address(bare).is_loopback


def _check_token(token: str) -> None:
    if len(token) < 16 or not all("!" <= character <= "~" for character in token):
        raise ValueError("is not 16 or more visible ASCII characters without spaces")


class SettingsError(Exception):
    """Names each wrong variable and what it should be."""


def read_settings() -> Settings:
    """Reads the environment, or raises SettingsError."""
    try:
        return Settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            if not problem["loc"]:
                # What several settings say together names them itself.
                lines.append(problem["msg"].removeprefix("Value error, "))
                continue
            name = str(problem["loc"][0])
            shared = name.startswith("TUTELAGE_")
            key = name.removeprefix("TUTELAGE_").lower()
            variable = name if shared else f"STUDENT_{key.upper()}"
            field = Settings.model_fields.get(key)
            should = field.description if field else "a known setting"
            lines.append(f"{variable}: {problem['msg']}; should be {should}")
        raise SettingsError("\n".join(lines)) from error
