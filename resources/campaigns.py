"""The folder of campaign files, one per partition, and the record of their rounds."""

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
from mlip_assets.surrogates import load_campaign

#: Tag of a run that works on the next round of its campaign.
REFRESH_TAG = "mlip/refresh"


class CampaignFolder(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Reads ``<folder>/<partition key>.yaml``, and records the rounds of each campaign."""

    folder: str = Field(default="campaigns", description="folder of the campaign files")
    data: str | None = Field(
        default=None,
        description="root of the results, where rounds are recorded; null: only first runs",
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
        if name not in names:  # also rejects '../x' and other keys that are no file name
            near = difflib.get_close_matches(name, names, 1)
            raise CampaignError(
                f"{self.folder}/{name}.yaml: no such campaign"
                + (f"; did you mean '{near[0]}'?" if near else "")
                + f" Campaigns here: {', '.join(names) or 'none'}"
            )
        return load_campaign(Path(self.folder) / f"{name}.yaml")

    def begin_or_resume_round(self, context: dg.AssetExecutionContext) -> Campaign:
        """The campaign in the round of this run; the round is recorded if it is new.

        A run with the tag ``REFRESH_TAG`` works on the next round, any other run on the last one.

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
        """The recorded rounds of a campaign."""
        return Rounds() if self.data is None else Rounds.open(self._rounds_file(name))

    def record(self, campaign: Campaign, **found: Any) -> None:
        """Add to the record of the round that :meth:`begin_or_resume_round` gave."""
        if self.data is not None:
            file = self._rounds_file(campaign.name)
            Rounds.open(file).record(campaign.round, **found).save(file)

    def coverage_radius(self, campaign: Campaign) -> float:
        """Distance from a label within which a frame is covered, which the first run has set.

        Raises
        ------
        CampaignError
            The first run has not selected frames.
        """
        rounds = self.rounds(campaign.name).rounds
        if not rounds or rounds[0].coverage_radius is None:
            raise CampaignError(
                f"campaign '{campaign.name}': its first run is not finished, so the coverage radius "
                f"of its labels is not set; finish it (mlip run {campaign.name}) before the "
                "refresh"
            )
        return rounds[0].coverage_radius

    def _rounds_file(self, name: str) -> UPath:
        assert self.data is not None
        return as_path(self.data) / name / ROUNDS_NAME
