"""The trajectory: the frame table that exploration writes and everything later reads."""

from __future__ import annotations

from mlip_assets.trajectory.trajectory import (
    FRAME_SCHEMA,
    GuardEvent,
    Part,
    Trajectory,
    WalkerReport,
)

__all__ = [
    "FRAME_SCHEMA",
    "GuardEvent",
    "Part",
    "Trajectory",
    "WalkerReport",
]
