"""Rounds of a campaign: candidates for labels, the record of the rounds, and convergence."""

from __future__ import annotations

from mlip_assets.refresh.candidates import (
    LabellingCandidates,
    coverage_radius,
    covered_fraction_by_round,
    find_candidates,
)
from mlip_assets.refresh.convergence import reason_to_stop
from mlip_assets.refresh.rounds import Round, Rounds

__all__ = [
    "LabellingCandidates",
    "Round",
    "Rounds",
    "coverage_radius",
    "covered_fraction_by_round",
    "find_candidates",
    "reason_to_stop",
]
