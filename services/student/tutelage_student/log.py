"""Logs: one JSON object a line on stderr. Row text never goes into them."""

import json
import logging
import sys
import time
from typing import Any


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": "student",
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


logger = logging.getLogger("tutelage_student")


def configure(level: str) -> None:
    """Sends this package's logs and the libraries' warnings to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    logger.setLevel(level.upper())


def info(message: str, **facts: object) -> None:
    """One line at level info."""
    logger.info(message, extra={"facts": facts})
