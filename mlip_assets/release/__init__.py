"""Which model is promoted, and what is handed to others: package, model card, LAMMPS export."""

from __future__ import annotations

from mlip_assets.release.package import pack
from mlip_assets.release.promotion import PromotedModels, judge

__all__ = [
    "PromotedModels",
    "judge",
    "pack",
]
