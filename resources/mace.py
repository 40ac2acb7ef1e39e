"""The surrogate resource: which model an asset gets, decided by the campaign or the launchpad."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from pydantic import Field

from mlip_assets.campaign import Campaign
from resources.surrogate import Surrogate, find_surrogate


class MaceResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Gives each campaign its surrogate, MACE unless it names another.

    The first two fields override the campaign for one run.
    """

    model: str | None = Field(
        default=None, description="name or path; null: what the campaign says"
    )
    device: str | None = Field(
        default=None, description="auto, cpu, cuda or cuda:n; null: what the campaign says"
    )
    own_models: str | None = Field(
        default=None,
        description="local folder of the models a campaign has promoted; {campaign}: its name",
    )

    def surrogate(self, campaign: Campaign) -> Surrogate:
        """Resolve and check the surrogate of a campaign.

        Raises
        ------
        SurrogateError
            It cannot be found, has another hash than stated, or lacks an element.
        """
        settings = campaign.exploration
        own = Path(self.own_models.format(campaign=campaign.name)) if self.own_models else None
        surrogate = find_surrogate(
            self.model or settings.surrogate,
            device=self.device or settings.device,
            dtype=settings.dtype,
            sha256=None if self.model else settings.surrogate_sha256,
            own_models=own,
            own_name=campaign.explored_with,
        )
        surrogate.require_elements(campaign.elements)
        return surrogate
