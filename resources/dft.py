"""The DFT program and the ledger in which its labels are kept."""

from __future__ import annotations

from collections.abc import Collection

import dagster as dg
from pydantic import Field

from mlip_assets.campaign import LabellingSettings
from mlip_assets.labelling import ENGINES, DftEngine, LabelLedger


class DftResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Turns a campaign's labelling settings into an engine."""

    ledger_path: str = Field(description="local SQLite file shared by all campaigns")

    def engine(self, settings: LabellingSettings, elements: Collection[str]) -> DftEngine:
        """The engine that the settings name, with its data for the elements."""
        return ENGINES[settings.engine](settings, elements)

    def ledger(self) -> LabelLedger:
        """The ledger; made when first written to."""
        return LabelLedger(self.ledger_path)
