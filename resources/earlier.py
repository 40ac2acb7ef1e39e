"""What was stored before and a campaign builds on: labelled frames, and the axes of a map."""

# No `from __future__ import annotations` here: Dagster reads ResourceDependency from the class body.

from pathlib import Path

import dagster as dg
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from io_managers.label_database import LabelDatabaseIOManager
from io_managers.parquet import DescriptorIOManager, EmbeddingIOManager
from io_managers.storage import Storage
from mlip_assets.campaign import Campaign, CampaignError
from mlip_assets.release import PromotedModels
from mlip_assets.release.promotion import PROMOTED_FOLDER
from mlip_assets.sampling import PrincipalAxes, project_frames
from mlip_assets.training import TrainedModel
from mlip_assets.trajectory import Trajectory, round_of


class EarlierRuns(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Reads what ``sampling.exclude_labelled_in`` and ``sampling.pca_from`` name, and own labels.

    A campaign may take the axes of its own first run, and in a refresh it does.
    """

    storage: dg.ResourceDependency[Storage]

    def check(self, campaign: Campaign) -> None:
        """Find out before anything is computed whether all that is named can be used.

        Raises
        ------
        CampaignError
            As :meth:`labelled_frames` and :meth:`axes`.
        """
        self.labelled_frames(campaign)
        self.axes(campaign)

    def labelled_frames(self, campaign: Campaign) -> list[Atoms]:
        """Labelled frames of ``sampling.exclude_labelled_in``, then those of the campaign itself.

        Raises
        ------
        CampaignError
            A campaign has no labels, or its frames hold elements that this one lacks.
        """
        others = [
            atoms
            for name in dict.fromkeys(campaign.sampling.exclude_labelled_in)
            for atoms in self._labelled_in(name, campaign)
        ]
        return others + self.own_labelled_frames(campaign)

    def own_labelled_frames(self, campaign: Campaign) -> list[Atoms]:
        """Those that a refresh finds explored and labelled by the campaign's rounds before it."""
        if campaign.round == 0:
            return []
        return [
            atoms
            for atoms in self._labelled_in(campaign.name, campaign)
            if 0 <= round_of(atoms.info["frame_id"]) < campaign.round
        ]

    def labelled_on(
        self, campaign: Campaign, axes: PrincipalAxes
    ) -> tuple[list[Atoms], NDArray[np.float64]]:
        """:meth:`labelled_frames`, and where they lie on a map, (n_frames, n_components)."""
        frames = self.labelled_frames(campaign)
        return frames, project_frames(frames, axes, campaign.descriptors, campaign.elements)

    def model(self, campaign: Campaign) -> TrainedModel | None:
        """The promoted model that explores a refresh; None where the surrogate does."""
        if campaign.explored_with is None:
            return None
        folder = self.storage.working_folder(campaign.name, PROMOTED_FOLDER)
        return PromotedModels(Path(str(folder))).open(campaign.explored_with)

    def expected_error(
        self, campaign: Campaign, trajectory: Trajectory, frame_ids: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """Force RMSE (n,) to expect, eV/Å, of that model for frames that it has explored.

        None where it has no calibrated committee.
        """
        model = self.model(campaign)
        if model is None:
            return None
        return model.expected_error(trajectory.column("force_spread_eV_per_A", frame_ids))

    def error_limit(self, campaign: Campaign) -> float:
        """Expected force RMSE above which a frame of a refresh is worth a label, eV/Å.

        Infinite where the surrogate explored.
        """
        model = self.model(campaign)
        return (
            campaign.refresh.uncertainty_threshold * model.force_rmse_eV_per_A if model else np.inf
        )

    def axes(self, campaign: Campaign) -> PrincipalAxes | None:
        """Axes of the campaign of ``sampling.pca_from``; None where new ones are to be fitted.

        Raises
        ------
        CampaignError
            That campaign has no map, or its frames were described in another way.
        """
        name = campaign.sampling.pca_from
        if name is None:
            return None
        where = f"{campaign.name}.yaml: sampling.pca_from: campaign '{name}'"
        maps = EmbeddingIOManager(storage=self.storage)
        path = maps.place("pca_embedding", name)
        if not path.exists():
            if name == campaign.name:
                return None
            raise CampaignError(
                f"{where} has no map ({path} is not there); run its job exploration first, or leave "
                "pca_from out"
            )
        matrices = DescriptorIOManager(storage=self.storage)
        theirs = matrices.read(matrices.place("descriptor_matrix", name)).settings
        ours = {**campaign.descriptors.stored(), "species": list(campaign.elements)}
        differing = [key for key in ours if ours[key] != theirs.get(key)]
        if differing:
            raise CampaignError(
                f"{where} was described with {_listed(theirs, differing)}, this one is with "
                f"{_listed(ours, differing)}; make them equal, or leave pca_from out"
            )
        return maps.read_axes(path)

    def _labelled_in(self, name: str, campaign: Campaign) -> list[Atoms]:
        where = f"{campaign.name}.yaml: sampling.exclude_labelled_in: campaign '{name}'"
        databases = LabelDatabaseIOManager(storage=self.storage)
        path = databases.place("labelled_db", name)
        if not (path / databases.commit_file).exists():
            if name == campaign.name:
                return []
            raise CampaignError(
                f"{where} has no labels ({path} is not there); run it first (make run "
                f"CAMPAIGN={name}), or take it out of the list"
            )
        frames: list[Atoms] = databases.read(path).labelled
        foreign = {symbol for atoms in frames for symbol in atoms.symbols} - set(campaign.elements)
        if foreign:
            raise CampaignError(
                f"{where} holds {', '.join(sorted(foreign))}, which the composition "
                f"{campaign.composition} lacks; take it out of the list"
            )
        return frames


def _listed(settings: dict[str, object], keys: list[str]) -> str:
    return ", ".join(f"{key} = {settings.get(key)}" for key in keys)
