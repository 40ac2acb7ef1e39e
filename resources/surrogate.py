"""The surrogate resource: the model of a campaign, or the one set in the launchpad."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from pydantic import Field

from mlip_assets.campaign import OWN_SURROGATE, Campaign
from mlip_assets.release import PromotedModels
from mlip_assets.surrogates import Surrogate, SurrogateError, campaign_surrogate
from mlip_assets.training import TrainedModel


class SurrogateResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Provides the surrogate of a campaign on the GPUs of this machine, or on its CPU.

    The fields ``model`` and ``device`` override the campaign for one run.
    """

    model: str | None = Field(default=None, description="name or path; null: that of the campaign")
    device: str | None = Field(
        default=None, description="auto, cpu, cuda or cuda:n; null: that of the campaign"
    )
    own_models: str | None = Field(
        default=None,
        description="local folder of the models a campaign has promoted; {campaign}: its name",
    )

    def resolve(self, campaign: Campaign) -> Surrogate:
        """Resolve and check the surrogate of a campaign.

        Raises
        ------
        SurrogateError
            It cannot be found, its hash differs from the campaign, or it lacks an element.
        """
        names = self.model or campaign.exploration.surrogate
        listed = (names,) if isinstance(names, str) else names
        return campaign_surrogate(
            campaign,
            names=self.model,
            device=self.device,
            own_model=self._own_model(campaign) if OWN_SURROGATE in listed else None,
        )

    def _own_model(self, campaign: Campaign) -> TrainedModel | None:
        """The model of the current round of a refresh, otherwise the promoted one."""
        if self.own_models is None:
            return None
        folder = Path(self.own_models.format(campaign=campaign.name))
        models, name = PromotedModels(folder), campaign.explored_with
        try:
            return models.open(name) if name else models.in_use()[0]
        except FileNotFoundError as error:
            raise SurrogateError(
                f"exploration.surrogate: '{OWN_SURROGATE}' is the best model this campaign has "
                f"trained, but {folder} holds none yet; run it once with another surrogate, such as "
                "'bundled'"
            ) from error
        except ValueError as error:
            raise SurrogateError(f"exploration.surrogate: {error}") from error
