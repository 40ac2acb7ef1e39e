"""Release of a model: promotion, package, model card, export for LAMMPS."""

from __future__ import annotations

from mlip_assets.release.package import write_package
from mlip_assets.release.promotion import PromotedModels, decide_promotion

__all__ = [
    "PromotedModels",
    "decide_promotion",
    "write_package",
]
