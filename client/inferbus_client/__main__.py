"""The command `inferbus`, also as `python -m inferbus_client`: says what to install where only the library is."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

#: What the extra [cli] brings. A device that only asks has no use for a terminal's libraries.
_NEEDED: Final = ("click", "prompt_toolkit", "rich")


def main() -> None:
    """Run the command line."""
    if not all(map(find_spec, _NEEDED)):
        sys.stderr.write("inferbus: the commands are not installed here: in a checkout, pip install './client[cli]'\n")
        sys.exit(2)
    try:
        from inferbus_client.cli.main import main as run  # noqa: PLC0415 - it needs the above
    except KeyboardInterrupt:  # it takes its time on a small machine, and a person may not have it
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
