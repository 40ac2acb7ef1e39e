"""Where calculations run: processes and GPUs of this machine. No science."""

from __future__ import annotations

from mlip_assets.compute.local import Compute, InProcess, LocalProcesses

__all__ = [
    "Compute",
    "InProcess",
    "LocalProcesses",
]
