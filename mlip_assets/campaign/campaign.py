"""The campaign: all settings that determine what is computed, with their defaults."""

from __future__ import annotations

import zlib
from typing import Self

from ase.data import atomic_numbers
from pydantic import Field, PrivateAttr, model_validator

from mlip_assets.campaign.elements import count_elements
from mlip_assets.campaign.settings.descriptors import DescriptorSettings
from mlip_assets.campaign.settings.exploration import NOT_MACE, OWN_SURROGATE, ExplorationSettings
from mlip_assets.campaign.settings.guards import GuardSettings
from mlip_assets.campaign.settings.labelling import LabellingSettings
from mlip_assets.campaign.settings.refresh import RefreshSettings
from mlip_assets.campaign.settings.sampling import SamplingSettings
from mlip_assets.campaign.settings.section import CampaignName, Section, fingerprint
from mlip_assets.campaign.settings.seeds import SeedSettings
from mlip_assets.campaign.settings.training import TrainingSettings
from mlip_assets.campaign.yaml_text import commented_yaml


class Campaign(Section):
    """Everything that decides what one campaign computes. Frozen; equal settings hash equally."""

    name: CampaignName = Field(description="the file's stem; also the partition key")
    composition: str = Field(description="chemical formula, such as Si or NaCl")
    random_seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        serialization_alias="seed",
        description="every random number depends on it",
    )
    seeds: SeedSettings = SeedSettings()
    exploration: ExplorationSettings = ExplorationSettings()
    guards: GuardSettings = GuardSettings()
    descriptors: DescriptorSettings = DescriptorSettings()
    sampling: SamplingSettings = SamplingSettings()
    labelling: LabellingSettings = LabellingSettings()
    training: TrainingSettings = TrainingSettings()
    refresh: RefreshSettings = RefreshSettings()

    _round: int = PrivateAttr(0)
    _explored_with: str | None = PrivateAttr(None)

    @property
    def round(self) -> int:
        """0 for the campaign as it is written, k for its k-th refresh."""
        return self._round

    @property
    def explored_with(self) -> str | None:
        """The promoted model, by its folder, that a refresh explores with; None: the surrogate."""
        return self._explored_with

    def in_round(self, number: int, explored_with: str | None = None) -> Campaign:
        """The campaign with the settings of one of its refreshes; 0 is the first run, as written.

        A refresh draws other random numbers, uses the principal components of the first run, and
        makes one cluster per frame to select.

        Parameters
        ----------
        explored_with
            Folder of the promoted model that explores and is fine-tuned; None: the surrogate.
        """
        if number == 0:
            return self
        explore = {"surrogate": OWN_SURROGATE, "surrogate_sha256": None} if explored_with else {}
        select = {
            "n_samples": self.refresh.n_samples or self.sampling.n_samples,
            "n_clusters": None,
            "pca_from": self.name,
        }
        refreshed = self.model_copy(
            update={
                "random_seed": zlib.crc32(f"{self.random_seed} {number}".encode()),
                "exploration": self.exploration.model_copy(update=explore),
                "sampling": self.sampling.model_copy(update=select),
            }
        )
        refreshed._round, refreshed._explored_with = number, explored_with
        return refreshed

    @property
    def formula(self) -> dict[str, int]:
        """Atoms of each element in one formula unit."""
        return count_elements(self.composition)

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols, by atomic number."""
        return tuple(sorted(self.formula, key=atomic_numbers.__getitem__))

    @property
    def n_seeds(self) -> int:
        """Number of seeds that the settings define."""
        seeds, n_elements = self.seeds, len(self.elements)
        each = {
            "crystal": max(len(seeds.files), 1),
            "strained": len(seeds.strains),
            "sheared": len(seeds.shears),
            "interstitial": n_elements,
            "antisite": n_elements * (n_elements - 1),
            "slab": len(seeds.surfaces),
            "melt_quench": 2,
            "molecule": max(len(seeds.molecules), 1),
        }
        return sum(each.get(kind, 1) for kind in seeds.kinds)

    @property
    def n_walkers(self) -> int:
        """Seeds × temperatures and ramps × pressures × replicas.

        An upper bound: a seed that is not periodic in all directions runs without a pressure, once
        per temperature.
        """
        exploration = self.exploration
        n_temperatures = len(exploration.temperatures_K) + len(exploration.temperature_ramps_K)
        n_pressures = max(len(exploration.pressures_GPa), 1)
        return self.n_seeds * n_temperatures * n_pressures * exploration.replicas

    @property
    def n_frames(self) -> int:
        """Frames stored when no walker is stopped early (the starting frame is not stored)."""
        return self.n_walkers * (self.exploration.n_steps // self.exploration.sample_every)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all settings."""
        return fingerprint(self)

    def to_yaml(self) -> str:
        """The complete campaign as YAML, each setting with its meaning and unit as a comment."""
        return "\n".join(commented_yaml(self)) + "\n"

    @model_validator(mode="after")
    def _check_sections_agree(self) -> Self:
        count_elements(self.composition)
        for kind in ("antisite", "alloy"):
            if kind in self.seeds.kinds and len(self.elements) < 2:
                raise ValueError(
                    f"seeds.kinds: '{kind}' needs at least two elements, but the composition is "
                    f"{self.composition}; leave it out"
                )
        if self.name in self.sampling.exclude_labelled_in:
            raise ValueError(
                f"sampling.exclude_labelled_in: '{self.name}' is this campaign; take it out of the "
                "list: a refresh always excludes what the campaign has labelled (mlip refresh)"
            )
        tuned = self.exploration.surrogates[0].partition(":")[0]
        if self.training.start_from == "surrogate" and tuned in NOT_MACE:
            raise ValueError(
                f"training.start_from: '{tuned}' is not a MACE model and cannot be fine-tuned; write "
                "'start_from: scratch'"
            )
        if self.sampling.n_samples > self.n_frames:
            raise ValueError(
                f"sampling.n_samples: {self.sampling.n_samples} frames requested, but {self.n_walkers} "
                f"walkers of {self.exploration.n_steps} steps stored every "
                f"{self.exploration.sample_every} give at most {self.n_frames}; lower n_samples, or "
                "raise exploration.n_steps or exploration.replicas"
            )
        return self
