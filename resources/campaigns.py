"""The campaigns resource: the folder of campaign files, one a partition, and their rounds."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field
from upath import UPath

from mlip_assets.campaign import Campaign, CampaignError
from mlip_assets.common.files import as_path
from mlip_assets.refresh.rounds import ROUNDS_NAME, Rounds
from mlip_assets.release import PromotedModels
from mlip_assets.release.promotion import PROMOTED_FOLDER
from mlip_assets.surrogates.finding import load_campaign

#: Of a run that works on the next round of its campaign.
REFRESH_TAG = "mlip/refresh"


class CampaignFolder(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Reads ``<folder>/<partition key>.yaml``, and keeps the record of each campaign's rounds."""

    folder: str = Field(default="campaigns", description="folder of the campaign files")
    data: str | None = Field(
        default=None,
        description="root of the results, where rounds are recorded; null: first runs alone",
    )

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

    def current(self, context: dg.AssetExecutionContext) -> Campaign:
        """The campaign in the round that this run works on, which begins now if it has not yet.

        A run with the tag ``REFRESH_TAG`` works on the next round; any other on the last there is.

        Raises
        ------
        CampaignError
            As :meth:`load`.
        """
        campaign = self.load(context.partition_key)
        if self.data is None:
            return campaign
        rounds, run = self.rounds(campaign.name), context.run
        run_id = run.root_run_id or run.run_id
        number = rounds.number_of(run_id, refreshing=REFRESH_TAG in run.tags)
        explored_with = None
        if number and campaign.refresh.explore_with == "promoted":
            explored_with = PromotedModels(Path(self.data) / campaign.name / PROMOTED_FOLDER).name
        begun = rounds.begin(number, run_id, explored_with)
        if begun != rounds:
            begun.save(self._rounds_file(campaign.name))
        return campaign.in_round(number, begun.rounds[number].explored_with)

    def rounds(self, name: str) -> Rounds:
        """What is recorded of a campaign's rounds."""
        return Rounds() if self.data is None else Rounds.open(self._rounds_file(name))

    def record(self, campaign: Campaign, **found: Any) -> None:
        """Add to the record of the round that :meth:`current` gave."""
        if self.data is not None:
            file = self._rounds_file(campaign.name)
            Rounds.open(file).record(campaign.round, **found).save(file)

    def known_distance(self, campaign: Campaign) -> float:
        """What the first run has set as the distance from a label within which a frame is known.

        Raises
        ------
        CampaignError
            It never came that far.
        """
        rounds = self.rounds(campaign.name).rounds
        if not rounds or rounds[0].known_distance is None:
            raise CampaignError(
                f"campaign '{campaign.name}': its first run was never finished, so nothing says "
                f"which frames count as known; run it (make run CAMPAIGN={campaign.name}) before it "
                "is refreshed"
            )
        return rounds[0].known_distance

    def _rounds_file(self, name: str) -> UPath:
        assert self.data is not None
        return as_path(self.data) / name / ROUNDS_NAME
