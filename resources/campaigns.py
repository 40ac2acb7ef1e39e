"""The campaigns resource: the folder of campaign files, one a partition."""

from __future__ import annotations

import difflib
from pathlib import Path

import dagster as dg
from pydantic import Field

from mlip_assets.campaign import Campaign, CampaignError
from resources.surrogate import load_campaign


class CampaignFolder(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Reads ``<folder>/<partition key>.yaml``."""

    folder: str = Field(default="campaigns", description="folder of the campaign files")

    def files(self) -> list[Path]:
        """Every campaign file, by name."""
        return sorted(Path(self.folder).glob("*.yaml"))

    def load(self, name: str) -> Campaign:
        """Load one campaign.

        Raises
        ------
        CampaignError
            There is no such file, or it is not valid.
        """
        names = [file.stem for file in self.files()]
        if name not in names:  # also refuses '../x' and other keys that are no file name
            near = difflib.get_close_matches(name, names, 1)
            raise CampaignError(
                f"{self.folder}/{name}.yaml: no such campaign"
                + (f"; did you mean '{near[0]}'?" if near else "")
                + f" Campaigns here: {', '.join(names) or 'none'}"
            )
        return load_campaign(Path(self.folder) / f"{name}.yaml")
