"""The trajectory: the frame table that exploration writes and every later asset reads.

This package defines the stored format, and imports no other package of the project except
``common``.
"""

from __future__ import annotations

from mlip_assets.trajectory.part import Part, cut_parts
from mlip_assets.trajectory.schema import (
    FRAME_ID_STRIDE,
    FRAME_SCHEMA,
    MAX_ROUNDS,
    SCALAR_COLUMNS,
    WALKERS_PER_ROUND,
    require_schema,
    round_of,
)
from mlip_assets.trajectory.trajectory import Trajectory
from mlip_assets.trajectory.walker_report import GuardEvent, WalkerReport
from mlip_assets.trajectory.writer import PartWriter, frame_table, write_part

__all__ = [
    "FRAME_ID_STRIDE",
    "FRAME_SCHEMA",
    "MAX_ROUNDS",
    "SCALAR_COLUMNS",
    "WALKERS_PER_ROUND",
    "GuardEvent",
    "Part",
    "PartWriter",
    "Trajectory",
    "WalkerReport",
    "cut_parts",
    "frame_table",
    "require_schema",
    "round_of",
    "write_part",
]
