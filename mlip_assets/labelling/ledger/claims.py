"""Claims: who computes what, known to all processes of a machine and freed when one dies."""

from __future__ import annotations

import fcntl  # POSIX only, like the clusters this runs on
import os
import socket
from pathlib import Path
from typing import Self, TextIO


def this_process() -> str:
    """How messages call this process."""
    return f"process {os.getpid()} on {socket.gethostname()}"


class Claim:
    """One lock file, held until :meth:`release` or the end of the process, however it ends."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Hold the file, or None where another holder lives, in this process or another."""
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("a", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return None
            except BaseException:
                file.close()
                raise
            # its last holder may have removed the file between our opening and our locking it
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(this_process())
                file.flush()
                return cls(file, path)
            file.close()

    def release(self) -> None:
        """Let others have it; the file is removed while it is held still."""
        self._path.unlink(missing_ok=True)
        self._file.close()
