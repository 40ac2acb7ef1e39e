"""The DFT engine and the ledger that stores its labels."""

from __future__ import annotations

from collections.abc import Collection

import dagster as dg
from pydantic import Field

from mlip_assets.campaign import LabellingSettings
from mlip_assets.labelling import ENGINES, DftEngine, LabelLedger


class DftResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Creates the DFT engine of a campaign."""

    ledger_path: str = Field(description="local SQLite file shared by all campaigns")

    def engine(self, settings: LabellingSettings, elements: Collection[str]) -> DftEngine:
        """The engine in the settings, with its data for the elements."""
        return ENGINES[settings.engine](settings, elements)

    def ledger(self) -> LabelLedger:
        """The ledger; its file is created at the first write."""
        return LabelLedger(self.ledger_path)
