"""Asset ``pca_embedding``: principal components of the descriptors of all frames."""

import dagster as dg

from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.descriptors import DescriptorMatrix
from mlip_assets.sampling import Embedding, embed, fit_embedding
from resources.campaigns import CampaignFolder
from resources.earlier import EarlierResults


@pipeline_asset(
    group="selection",
    kinds={"numpy", "parquet"},
    io_manager="embedding",
    code_version="2",
    checks=[("variance_explained", "the components explain at least the variance of the campaign")],
)
def pca_embedding(
    context: dg.AssetExecutionContext,
    descriptor_matrix: DescriptorMatrix,
    campaigns: CampaignFolder,
    earlier: EarlierResults,
) -> dg.MaterializeResult[Embedding]:
    """Principal components of the standardised descriptors, and the fitted transformation.

    With `sampling.pca_from`, and in a refresh, earlier components are used, so that embeddings can
    be compared.

    - `descriptor_matrix`: rows to embed
    """
    campaign = campaigns.begin_or_resume_round(context)
    sampling = campaign.sampling
    pca = earlier.pca(campaign)
    if pca is not None:
        embedding = embed(descriptor_matrix, pca)
    else:
        embedding = fit_embedding(
            descriptor_matrix,
            components=sampling.components,
            variance=sampling.variance,
            n_components=sampling.n_components,
        )
    explained = float(embedding.explained_variance_ratio.sum())
    fitted = pca is None and sampling.components == "variance"
    wanted = sampling.variance if fitted else 0.0
    return dg.MaterializeResult(
        value=embedding,
        metadata={
            "picture": figures.markdown(figures.embedding_plot(embedding)),
            "n_components": embedding.scores.shape[1],
            "components_kept_by": sampling.components if pca is None else "pca_from",
            "pca_from": campaign.name if pca is None else sampling.pca_from,
            "explained_variance": explained,
            "components": figures.component_table(embedding),
        },
        check_results=[
            check(
                "variance_explained", explained >= wanted - 1e-9, explained=explained, wanted=wanted
            )
        ],
    )
