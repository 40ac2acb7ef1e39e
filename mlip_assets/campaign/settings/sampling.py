"""Section ``sampling``: from all frames to those that are labelled."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mlip_assets.campaign.settings.section import CampaignName, OnOffText, Section


class SamplingSettings(Section):
    """Selection of the frames to label."""

    method: Literal["direct", "random", "uniform_stride", "fps"] = Field(
        "direct",
        description="direct: stratified selection | baselines: random | uniform_stride | fps: "
        "farthest point",
    )
    n_samples: int = Field(40, ge=1, description="frames to label")
    components: Literal["kaiser", "variance", "fixed"] = Field(
        "variance",
        description="principal components kept: kaiser: eigenvalues above one | variance | fixed: "
        "n_components",
    )
    variance: float = Field(
        0.99, gt=0, le=1, description="explained variance that determines the number of components"
    )
    n_components: int | None = Field(
        None, ge=1, description="number of principal components; makes components fixed"
    )
    weighting: Annotated[Literal["explained_variance", "off"], OnOffText] = Field(
        "off",
        description="weight of a component in the clustering: explained_variance | off: equal",
    )
    clustering: Literal["kmeans", "minibatch_kmeans", "birch", "faiss"] = Field(
        "kmeans", description="algorithm; faiss needs the extra of that name"
    )
    n_clusters: int | None = Field(None, ge=1, description="clusters; null: one per sample")
    presample_above: int | None = Field(
        100_000,
        ge=1000,
        serialization_alias="two_level_above",
        description="frames (at least ten per sample); larger pools are reduced to that number "
        "before clustering; null: never",
    )
    allocation: Literal["equitable", "proportional"] = Field(
        "equitable",
        description="distribution over the clusters of the frames beyond the first of each",
    )
    prefer_small_cells: bool = Field(
        False, description="select among the frames of a cluster with the fewest atoms, as 2DIRECT"
    )
    duplicate_tolerance: float = Field(
        1e-3,
        ge=0,
        lt=1,
        description="frames closer than this fraction of the embedding's radius are never both "
        "selected",
    )
    exclude_labelled_in: tuple[CampaignName, ...] = Field(
        (),
        serialization_alias="beyond",
        description="other campaigns whose labelled frames count as already selected",
    )
    pca_from: CampaignName | None = Field(
        None,
        serialization_alias="axes_from",
        description="campaign whose principal components are used, so that both embeddings share "
        "their axes; this campaign's own name: those of its first run; null: fitted to its frames",
    )

    @model_validator(mode="before")
    @classmethod
    def _infer_components_mode(cls, written: Any) -> Any:
        """A number of components means ``components: fixed``."""
        if not isinstance(written, dict):
            return written
        read = dict(written)
        if read.get("n_components") is not None:
            read.setdefault("components", "fixed")
        return read

    @model_validator(mode="after")
    def _check_components(self) -> Self:
        if (self.components == "fixed") != (self.n_components is not None):
            raise ValueError(
                f"components: {self.components} does not go with n_components = "
                f"{self.n_components}; give a number with 'fixed', and none with 'kaiser' or "
                "'variance'"
            )
        return self

    @model_validator(mode="after")
    def _check_clusters(self) -> Self:
        if self.n_clusters is not None and self.n_clusters > self.n_samples:
            raise ValueError(
                f"n_clusters: {self.n_clusters} clusters cannot all be represented by n_samples = "
                f"{self.n_samples} frames; lower n_clusters or raise n_samples"
            )
        if self.prefer_small_cells and self.method != "direct":
            raise ValueError(
                f"prefer_small_cells: method '{self.method}' does not use the sizes of cells; write "
                "'method: direct', or leave prefer_small_cells out"
            )
        return self
