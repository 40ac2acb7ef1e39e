"""A part-file: consecutive frames of one walker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Part:
    """One part-file of one walker."""

    path: str
    """Relative to the trajectory's root."""
    n_frames: int
    """Frames that belong to the trajectory; the file of a longer run may contain more."""
    first_frame_id: int
    last_frame_id: int


def cut_parts(parts: Sequence[Part], n_frames: int, frame_id_step: int) -> tuple[Part, ...]:
    """The first ``n_frames`` frames of parts whose frame identifiers are evenly spaced."""
    kept: list[Part] = []
    for part in parts:
        count = min(part.n_frames, n_frames - sum(p.n_frames for p in kept))
        if count > 0:
            last = part.first_frame_id + (count - 1) * frame_id_step
            kept.append(replace(part, n_frames=count, last_frame_id=last))
    return tuple(kept)
