"""`python -m tutelage_student`: starts the student."""

import asyncio
import os
import sys

from tutelage_student.errors import StudentError
from tutelage_student.log import configure, logger
from tutelage_student.settings import SettingsError, read_settings


def main() -> int:
    """Returns the exit status: 2 for wrong settings, 1 for a failed start."""
    try:
        settings = read_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    # Both are read when PyTorch and tqdm are imported. Threads that wait actively starve whatever
    # else runs (the embedded teacher, the other services) and then themselves: with four other
    # busy processes on two cores, TREC rows train at 18 to 74 tokens/s actively, at 194 to 218
    # passively.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Progress bars are no JSON lines.
    os.environ.setdefault("TQDM_DISABLE", "1")
    configure(settings.log_level)
    from tutelage_student.server import serve

    try:
        asyncio.run(serve(settings))
    except StudentError as error:
        logger.error(error.message)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
