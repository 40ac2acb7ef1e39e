"""Child processes: end with the parent, usable cores, memory."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Let the kernel kill this process when its parent ends, even by SIGKILL (Linux only).

    Otherwise an orphaned worker would continue to write while another run resumes its work. On other
    systems only the locks of the writers prevent this.

    Parameters
    ----------
    parent
        Process id of the parent, if known; this process exits if the parent has already ended.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def usable_cores() -> int:
    """Number of cores that this process may use; a scheduler may permit fewer than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_GiB(group: int) -> float:
    """Resident memory of a process group, GiB; 0 on systems without ``/proc``."""
    total_bytes = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # the name, in brackets, may contain spaces; state, parent and group follow it
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        if int(fields[2]) == group:
            total_bytes += int(fields[21]) * resource.getpagesize()
    return total_bytes / 2**30
