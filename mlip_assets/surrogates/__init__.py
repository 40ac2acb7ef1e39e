"""Models that move atoms: how each is found, and how it is asked."""

from __future__ import annotations

from mlip_assets.surrogates.batch import BatchCalculator, Evaluation, force_spread
from mlip_assets.surrogates.finding import (
    campaign_surrogate,
    find_surrogate,
    load_campaign,
)
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
