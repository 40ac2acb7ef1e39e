"""The ledger: every label that was computed, and every failure with its reason."""

from __future__ import annotations

from mlip_assets.labelling.ledger.ledger import Label, LabelLedger

__all__ = [
    "Label",
    "LabelLedger",
]
