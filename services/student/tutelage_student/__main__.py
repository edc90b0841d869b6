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
    configure(settings.log_level)
    # Progress bars are no JSON lines.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from tutelage_student.server import serve

    try:
        asyncio.run(serve(settings))
    except StudentError as error:
        logger.error(error.message)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
