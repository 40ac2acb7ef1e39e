"""The campaign: a short YAML file, and all settings that follow from it.

``load("campaigns/silicon.yaml")`` reads the file, fills in the defaults, checks everything that
can be checked without computing, and returns a frozen :class:`Campaign`. All problems are reported
together in one :class:`CampaignError`, each line with the file, the key, the value and a fix.

:mod:`~mlip_assets.campaign.settings` has one module per section of the YAML file. To rename a key,
give its field the first name as ``serialization_alias``: the first name is still read, and settings
are hashed and stored under it.
"""

from mlip_assets.campaign.campaign import Campaign
from mlip_assets.campaign.file import load
from mlip_assets.campaign.messages import CampaignError, nearest
from mlip_assets.campaign.settings.descriptors import DescriptorSettings
from mlip_assets.campaign.settings.exploration import (
    BUNDLED_SURROGATE,
    NAMED_SURROGATES,
    OWN_SURROGATE,
    Ensemble,
    ExplorationSettings,
    MdBackend,
    MdBackendChoice,
)
from mlip_assets.campaign.settings.guards import GuardSettings
from mlip_assets.campaign.settings.labelling import GateSettings, LabellingSettings
from mlip_assets.campaign.settings.refresh import RefreshSettings
from mlip_assets.campaign.settings.sampling import SamplingSettings
from mlip_assets.campaign.settings.section import NAME_PATTERN, fingerprint
from mlip_assets.campaign.settings.seeds import SeedSettings
from mlip_assets.campaign.settings.training import TrainingSettings

__all__ = [
    "BUNDLED_SURROGATE",
    "NAMED_SURROGATES",
    "NAME_PATTERN",
    "OWN_SURROGATE",
    "Campaign",
    "CampaignError",
    "DescriptorSettings",
    "Ensemble",
    "ExplorationSettings",
    "GateSettings",
    "GuardSettings",
    "LabellingSettings",
    "MdBackend",
    "MdBackendChoice",
    "RefreshSettings",
    "SamplingSettings",
    "SeedSettings",
    "TrainingSettings",
    "fingerprint",
    "load",
    "nearest",
]
