"""Child processes that do not outlive the work they belong to."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent dies, even by SIGKILL (Linux only).

    Without it an orphaned worker would go on writing beside the run that resumes its work.
    Elsewhere the locks that the writers take are the only guard.

    Parameters
    ----------
    parent
        Process id of the parent where it is known; it may have died before the request was made.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def usable_cores() -> int:
    """Cores this process may run on, which under a scheduler are fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_GiB(group: int) -> float:
    """Resident memory of all processes of a process group, in GiB; 0 where ``/proc`` is missing."""
    total_bytes = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # the name, in brackets, may hold spaces: state, parent and group come after it
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[2]) == group:
            total_bytes += int(fields[21]) * resource.getpagesize()
    return total_bytes / 2**30
