"""The MACE resource: the surrogate as the MACE model from which training starts."""

from __future__ import annotations

from pathlib import Path

from mlip_assets.campaign import Campaign
from resources.surrogate import SurrogateResource


class MaceResource(SurrogateResource):
    """The GPU-aware MACE model of a campaign, as the file that mace-torch's trainer fine-tunes."""

    def foundation_model(self, campaign: Campaign, path: Path) -> Path:
        """Write the ``.model`` file that fine-tuning starts from.

        Raises
        ------
        SurrogateError
            As :meth:`resolve`, or the surrogate is not a MACE model.
        """
        return self.resolve(campaign).save_model(path)
