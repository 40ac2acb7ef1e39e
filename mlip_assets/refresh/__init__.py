"""Rounds of a campaign: what a refresh labels, and when the campaign has converged."""

from __future__ import annotations

from mlip_assets.refresh.candidates import (
    Frontier,
    find_frontier,
    known_distance,
    known_share_by_round,
)
from mlip_assets.refresh.rounds import Round, Rounds

__all__ = [
    "Frontier",
    "Round",
    "Rounds",
    "find_frontier",
    "known_distance",
    "known_share_by_round",
]
