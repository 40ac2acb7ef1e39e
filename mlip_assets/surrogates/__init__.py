"""Surrogates: models that move atoms, their committees and their evaluation.

No weights are loaded and no model's package is imported before a calculator is built.
"""

from __future__ import annotations

from mlip_assets.surrogates.batch import BatchCalculator, Evaluation, force_spread
from mlip_assets.surrogates.registry import campaign_surrogate, find_surrogate, load_campaign
from mlip_assets.surrogates.surrogate import Surrogate, SurrogateError

__all__ = [
    "BatchCalculator",
    "Evaluation",
    "Surrogate",
    "SurrogateError",
    "campaign_surrogate",
    "find_surrogate",
    "force_spread",
    "load_campaign",
]
