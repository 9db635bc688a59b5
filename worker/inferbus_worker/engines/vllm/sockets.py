"""vLLM's processes talk through sockets in a folder, and leave them there when they are killed, which is how they end.

So the engines of a worker have a folder of their own, which goes with the last of them.
"""

from __future__ import annotations

import os
import threading
from tempfile import TemporaryDirectory
from typing import Final

#: Where vLLM puts them; one for the whole process, and what the user has set stays.
_VARIABLE: Final = "VLLM_RPC_BASE_PATH"
#: A short one: a socket's path has room for some 100 characters, and vLLM's names take 36.
_PREFIX: Final = "vllm-"


class SocketFolder:
    """There while anybody is in it. Any thread may come and go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._folder: TemporaryDirectory[str] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._users and _VARIABLE not in os.environ:
                self._folder = TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
                os.environ[_VARIABLE] = self._folder.name
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._folder is not None:
                del os.environ[_VARIABLE]
                self._folder.cleanup()
                self._folder = None


#: Of all engines in this process.
SOCKETS: Final = SocketFolder()
