"""Asset ``pca_embedding``: the map of all frames."""

import dagster as dg

from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.descriptors import DescriptorMatrix
from mlip_assets.sampling import Embedding, embed, fit_embedding
from resources.campaigns import CampaignFolder
from resources.earlier import EarlierRuns


@pipeline_asset(
    group="selection",
    kinds={"scikitlearn", "parquet"},
    io_manager="embedding",
    code_version="2",
    checks=[("variance_explained", "the components explain the variance asked for")],
)
def pca_embedding(
    context: dg.AssetExecutionContext,
    descriptor_matrix: DescriptorMatrix,
    campaigns: CampaignFolder,
    earlier: EarlierRuns,
) -> dg.MaterializeResult[Embedding]:
    """Principal components of the standardised descriptors; the fitted transform is kept."""
    campaign = campaigns.current(context)
    sampling = campaign.sampling
    axes = earlier.axes(campaign)
    if axes is not None:
        embedding = embed(descriptor_matrix, axes)
    else:
        embedding = fit_embedding(
            descriptor_matrix,
            components=sampling.components,
            variance=sampling.variance,
            n_components=sampling.n_components,
        )
    explained = float(embedding.explained_variance_ratio.sum())
    fitted = axes is None and sampling.components == "variance"
    wanted = sampling.variance if fitted else 0.0
    return dg.MaterializeResult(
        value=embedding,
        metadata={
            "n_components": embedding.scores.shape[1],
            "components_kept_by": sampling.components if axes is None else "pca_from",
            "pca_from": campaign.name if axes is None else sampling.pca_from,
            "explained_variance": explained,
            "components": figures.component_table(embedding),
            "picture": figures.markdown(figures.embedding_plot(embedding)),
        },
        check_results=[
            check(
                "variance_explained", explained >= wanted - 1e-9, explained=explained, wanted=wanted
            )
        ],
    )
