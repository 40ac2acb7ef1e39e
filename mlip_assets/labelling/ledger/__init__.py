"""The ledger: every label that was computed, and every failure with its reason.

``label`` has the records, ``ledger`` reads and writes them, ``tables`` is the SQLite schema,
``equality`` decides which structures share a label, and ``claims`` which process computes it.
"""

from __future__ import annotations

from mlip_assets.labelling.ledger.label import Entry, Label, Outcome, Spending
from mlip_assets.labelling.ledger.ledger import LabelLedger

__all__ = [
    "Entry",
    "Label",
    "LabelLedger",
    "Outcome",
    "Spending",
]
