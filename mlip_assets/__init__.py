"""From a two-line campaign file to a trained MACE potential, as Dagster assets and as a library.

The names in ``__all__`` are the library: ``from mlip_assets import load_campaign, explore``. Each is
imported from its package at first use, so that ``import mlip_assets`` itself costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlip_assets.campaign import Campaign, CampaignError, TrainingSettings
    from mlip_assets.descriptors import (
        DescriptorMatrix,
        compute_descriptors,
        soap_power_spectrum,
    )
    from mlip_assets.dynamics import explore
    from mlip_assets.labelling import (
        EmtEngine,
        EspressoEngine,
        GpawEngine,
        LabelledDatabase,
        LabelLedger,
        VaspEngine,
        label_frames,
    )
    from mlip_assets.sampling import (
        CoverageReport,
        DirectSelection,
        direct_select,
        measure_coverage,
    )
    from mlip_assets.structures import build_seeds
    from mlip_assets.surrogates import Surrogate, SurrogateError, find_surrogate, load_campaign
    from mlip_assets.training import TrainedModel, evaluate, fit_mace
    from mlip_assets.trajectory import Trajectory

#: Name -> the package that defines it.
_PACKAGES = {
    "Campaign": "campaign",
    "CampaignError": "campaign",
    "CoverageReport": "sampling",
    "DescriptorMatrix": "descriptors",
    "DirectSelection": "sampling",
    "EmtEngine": "labelling",
    "EspressoEngine": "labelling",
    "GpawEngine": "labelling",
    "LabelLedger": "labelling",
    "LabelledDatabase": "labelling",
    "Surrogate": "surrogates",
    "SurrogateError": "surrogates",
    "TrainedModel": "training",
    "TrainingSettings": "campaign",
    "Trajectory": "trajectory",
    "VaspEngine": "labelling",
    "build_seeds": "structures",
    "compute_descriptors": "descriptors",
    "direct_select": "sampling",
    "evaluate": "training",
    "explore": "dynamics",
    "find_surrogate": "surrogates",
    "fit_mace": "training",
    "label_frames": "labelling",
    "load_campaign": "surrogates",
    "measure_coverage": "sampling",
    "soap_power_spectrum": "descriptors",
}

__all__ = [
    "Campaign",
    "CampaignError",
    "CoverageReport",
    "DescriptorMatrix",
    "DirectSelection",
    "EmtEngine",
    "EspressoEngine",
    "GpawEngine",
    "LabelLedger",
    "LabelledDatabase",
    "Surrogate",
    "SurrogateError",
    "TrainedModel",
    "TrainingSettings",
    "Trajectory",
    "VaspEngine",
    "build_seeds",
    "compute_descriptors",
    "direct_select",
    "evaluate",
    "explore",
    "find_surrogate",
    "fit_mace",
    "label_frames",
    "load_campaign",
    "measure_coverage",
    "soap_power_spectrum",
]


if not TYPE_CHECKING:  # a type checker reads the imports above, and finds names that do not exist

    def __getattr__(name: str) -> object:
        """Import a public name at its first use (PEP 562)."""
        if name not in _PACKAGES:
            raise AttributeError(f"module 'mlip_assets' has no attribute '{name}'")
        value = getattr(import_module(f"mlip_assets.{_PACKAGES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names, imported or not, beside what the module holds."""
    return sorted({*globals(), *__all__})
