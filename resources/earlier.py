"""Earlier results that a campaign uses: labelled frames, fitted PCA and promoted models."""

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
from mlip_assets.sampling import PrincipalComponents, project_frames
from mlip_assets.training import TrainedModel
from mlip_assets.trajectory import Trajectory, round_of


class EarlierResults(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Results of the campaigns in ``sampling.exclude_labelled_in`` and ``sampling.pca_from``.

    A refresh also uses the labels, the PCA and the models of the campaign's own earlier rounds.
    """

    storage: dg.ResourceDependency[Storage]

    def check(self, campaign: Campaign) -> None:
        """Check that all results which the campaign names can be used.

        Raises
        ------
        CampaignError
            As :meth:`labelled_frames` and :meth:`pca`.
        """
        self.labelled_frames(campaign)
        self.pca(campaign)

    def labelled_frames(self, campaign: Campaign) -> list[Atoms]:
        """Labelled frames of ``sampling.exclude_labelled_in``, then those of the campaign itself.

        Raises
        ------
        CampaignError
            A campaign has no labels, or its frames contain elements that this campaign lacks.
        """
        others = [
            atoms
            for name in dict.fromkeys(campaign.sampling.exclude_labelled_in)
            for atoms in self._labelled_in(name, campaign)
        ]
        return others + self.own_labelled_frames(campaign)

    def own_labelled_frames(self, campaign: Campaign) -> list[Atoms]:
        """Labelled frames that the rounds before this one explored; none in the first run."""
        if campaign.round == 0:
            return []
        return [
            atoms
            for atoms in self._labelled_in(campaign.name, campaign)
            if 0 <= round_of(atoms.info["frame_id"]) < campaign.round
        ]

    def labelled_with_scores(
        self, campaign: Campaign, pca: PrincipalComponents
    ) -> tuple[list[Atoms], NDArray[np.float64]]:
        """:meth:`labelled_frames` and their principal components (n_frames, n_components)."""
        frames = self.labelled_frames(campaign)
        return frames, project_frames(frames, pca, campaign.descriptors, campaign.elements)

    def model(self, campaign: Campaign) -> TrainedModel | None:
        """The promoted model with which a refresh explores; None if it uses the surrogate."""
        if campaign.explored_with is None:
            return None
        folder = self.storage.working_folder(campaign.name, PROMOTED_FOLDER)
        return PromotedModels(Path(str(folder))).open(campaign.explored_with)

    def expected_error(
        self, campaign: Campaign, trajectory: Trajectory, frame_ids: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """Expected force RMSE (n,) of :meth:`model` for explored frames, eV/Å.

        None if there is no such model, or no calibrated committee.
        """
        model = self.model(campaign)
        if model is None:
            return None
        return model.expected_error(trajectory.column("force_spread_eV_per_A", frame_ids))

    def error_limit(self, campaign: Campaign) -> float:
        """Expected force RMSE above which a refresh labels a frame, eV/Å.

        Infinite if the surrogate explored.
        """
        model = self.model(campaign)
        threshold = campaign.refresh.uncertainty_threshold
        return threshold * model.force_rmse_eV_per_A if model else np.inf

    def pca(self, campaign: Campaign) -> PrincipalComponents | None:
        """Fitted PCA of the campaign in ``sampling.pca_from``; None if a new PCA is to be fitted.

        Raises
        ------
        CampaignError
            That campaign has no embedding, or its descriptors have other settings.
        """
        name = campaign.sampling.pca_from
        if name is None:
            return None
        where = f"{campaign.name}.yaml: sampling.pca_from: campaign '{name}'"
        embeddings = EmbeddingIOManager(storage=self.storage)
        path = embeddings.place("pca_embedding", name)
        if not path.exists():
            if name == campaign.name:
                return None
            raise CampaignError(
                f"{where} has no embedding ({path} does not exist); run its job exploration first, "
                "or remove pca_from"
            )
        matrices = DescriptorIOManager(storage=self.storage)
        theirs = matrices.read(matrices.place("descriptor_matrix", name)).settings
        ours = {**campaign.descriptors.stored(), "species": list(campaign.elements)}
        differing = [key for key in ours if ours[key] != theirs.get(key)]
        if differing:
            raise CampaignError(
                f"{where} has descriptors with {_listed(theirs, differing)}, this campaign with "
                f"{_listed(ours, differing)}; make them equal, or remove pca_from"
            )
        return embeddings.read_pca(path)

    def _labelled_in(self, name: str, campaign: Campaign) -> list[Atoms]:
        where = f"{campaign.name}.yaml: sampling.exclude_labelled_in: campaign '{name}'"
        databases = LabelDatabaseIOManager(storage=self.storage)
        path = databases.place("labelled_db", name)
        if not (path / databases.commit_file).exists():
            if name == campaign.name:
                return []
            raise CampaignError(
                f"{where} has no labels ({path} does not exist); run it first "
                f"(mlip run {name}), or remove it from the list"
            )
        frames: list[Atoms] = databases.read(path).labelled
        foreign = {symbol for atoms in frames for symbol in atoms.symbols} - set(campaign.elements)
        if foreign:
            raise CampaignError(
                f"{where} contains {', '.join(sorted(foreign))}, which the composition "
                f"{campaign.composition} lacks; remove it from the list"
            )
        return frames


def _listed(settings: dict[str, object], keys: list[str]) -> str:
    return ", ".join(f"{key} = {settings.get(key)}" for key in keys)
