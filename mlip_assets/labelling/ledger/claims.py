"""Claims: which process computes a label, by lock files that the system frees when it dies."""

from __future__ import annotations

import fcntl  # POSIX only, like the clusters this runs on
import os
import socket
from pathlib import Path
from typing import Self, TextIO


def this_process() -> str:
    """Name of this process in messages."""
    return f"process {os.getpid()} on {socket.gethostname()}"


class Claim:
    """A lock file, held until :meth:`release` or the end of the process."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Lock the file, or None if it is locked already, by this process or another."""
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
            # the previous holder may have removed the file after it was opened and before it was locked
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(this_process())
                file.flush()
                return cls(file, path)
            file.close()

    def release(self) -> None:
        """Free the claim; the file is removed before the lock is."""
        self._path.unlink(missing_ok=True)
        self._file.close()
