"""What the descriptors look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import numpy as np

from mlip_assets.figures.canvas import canvas, png, table

if TYPE_CHECKING:
    from mlip_assets.descriptors import DescriptorMatrix


def descriptor_plot(matrix: DescriptorMatrix) -> bytes:
    """Mean and spread of every feature over the first batch of frames."""
    _, rows = next(matrix.iter_batches(4096))
    figure, (axis,) = canvas(1, 1, 8, 3)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    features = np.arange(len(mean))
    axis.fill_between(features, mean - spread, mean + spread, alpha=0.3, lw=0)
    axis.plot(features, mean, lw=0.8)
    axis.set(xlabel="feature", ylabel="SOAP power spectrum", yscale="symlog")
    return png(figure)


def descriptor_table(matrix: DescriptorMatrix) -> dg.MetadataValue:
    """How long the vectors are and how much the features vary, over the first batch of frames."""
    _, rows = next(matrix.iter_batches(4096))
    measures = {
        "norm of a frame's vector": np.linalg.norm(rows, axis=1),
        "standard deviation of a feature": rows.std(axis=0),
    }
    return table(
        {"quantity": name, "least": v.min(), "median": np.median(v), "greatest": v.max()}
        for name, v in measures.items()
    )
