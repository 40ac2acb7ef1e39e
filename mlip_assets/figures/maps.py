"""The map of all frames, its clusters, and what was picked from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from mlip_assets.figures.canvas import COLOURS, canvas, legend, png, table

if TYPE_CHECKING:
    from ase import Atoms

    from mlip_assets.sampling import Clusters, CoverageReport, Embedding

#: Rows shown of a table that is looked up row by row.
PICK_ROWS = 1000
#: Points drawn one by one on a map; more become a density.
SCATTER_POINTS = 5000
#: Pixels of a density along each axis.
DENSITY_PIXELS = 280
#: Marked points that get an outline.
MARKS = 400
#: Clusters that get a bar each; more share bars.
CLUSTER_BARS = 40


def component_table(embedding: Embedding) -> dg.MetadataValue:
    """Variance explained by every component."""
    ratios = embedding.explained_variance_ratio
    return table(
        {"component": f"pc{i + 1}", "explained": ratio, "cumulative": total}
        for i, (ratio, total) in enumerate(zip(ratios, np.cumsum(ratios), strict=True))
    )


def embedding_plot(embedding: Embedding) -> bytes:
    """The map of all frames, and the variance of its axes."""
    figure, (left, right) = canvas(1, 2, 5.5, 4.5)
    _map(left, embedding)
    ratios = embedding.explained_variance_ratio
    right.bar(np.arange(1, len(ratios) + 1), ratios, color=COLOURS[1], label="each")
    right.plot(
        np.arange(1, len(ratios) + 1), np.cumsum(ratios), ".-", color=COLOURS[0], label="sum"
    )
    right.set(xlabel="component", ylabel="share of the variance", ylim=(0, 1.02))
    legend(right)
    return png(figure)


def cluster_table(clusters: Clusters) -> dg.MetadataValue:
    """Size and width of every cluster."""
    sizes = np.bincount(clusters.cluster)
    width = np.bincount(clusters.cluster, clusters.distance_to_centre) / np.maximum(sizes, 1)
    return table(
        {"cluster": i, "frames": int(size), "mean_distance": float(width[i])}
        for i, size in enumerate(sizes)
    )


def cluster_plot(embedding: Embedding, clusters: Clusters) -> bytes:
    """The map coloured by cluster, and the cluster sizes."""
    figure, (left, right) = canvas(1, 2, 5.5, 4.5)
    _map(left, embedding, clusters)
    _cluster_bars(right, frames=clusters.sizes)
    return png(figure)


def pick_table(frames: Sequence[Atoms]) -> dg.MetadataValue:
    """Every selected frame, and why; the first thousand of them."""
    rows = (
        {
            "frame_id": int(atoms.info["frame_id"]),
            "walker": atoms.info["walker"],
            "target_temperature_K": atoms.info["target_temperature_K"],
            "temperature_K": atoms.info["temperature_K"],
            "surrogate_energy_eV_per_atom": atoms.info["surrogate_energy_eV"] / len(atoms),
            "cluster": atoms.info["cluster"],
            "reason": atoms.info["reason"],
        }
        for atoms in frames
    )
    return table(rows, PICK_ROWS)


def coverage_table(report: CoverageReport, method: str) -> dg.MetadataValue:
    """A selection beside stride and random; distances are in units of the map's radius."""
    rows = {
        method: report.selection,
        "uniform_stride": report.uniform_stride,
        f"random, mean of {report.n_random}": report.random_mean,
        "random, standard deviation": report.random_sd,
    }
    return table({"selection": name, **vars(coverage)} for name, coverage in rows.items())


def selection_map(
    embedding: Embedding, clusters: Clusters, selected: np.ndarray, known: np.ndarray
) -> bytes:
    """The map coloured by cluster with the selected rows marked, and picks against cluster sizes.

    ``known`` (n, n_components) are the scores of frames that were labelled before.
    """
    figure, (left, right) = canvas(1, 2, 5.5, 4.5)
    _map(left, embedding, clusters)
    _marks(left, _plane(known), marker="s", colour="grey", label="labelled before")
    _marks(left, _plane(embedding.scores[selected]), marker="o", colour="white", label="selected")
    legend(left)
    counts = {
        "frames": clusters.sizes,
        "selected": np.bincount(clusters.cluster[selected], minlength=len(clusters.sizes)),
    }
    if len(known):
        before = np.bincount(clusters.predict(known), minlength=len(clusters.sizes))
        counts["labelled before"] = before
    _cluster_bars(right, **counts)
    return png(figure)


def _plane(scores: np.ndarray) -> np.ndarray:
    """The first two components; a map with only one gets a flat second axis."""
    return scores[:, :2] if scores.shape[1] > 1 else np.c_[scores[:, 0], np.zeros(len(scores))]


def _map(axis: Any, embedding: Embedding, clusters: Clusters | None = None) -> None:
    """All frames in the plane of the first two components, in the colours of their clusters."""
    plane = _plane(embedding.scores)
    cluster = np.zeros(len(plane), dtype=np.int64) if clusters is None else clusters.cluster
    colour = cluster % len(COLOURS)
    if len(plane) > SCATTER_POINTS:
        _density(axis, plane, colour)
    else:
        axis.scatter(*plane.T, c=np.take(COLOURS, colour), s=9, lw=0, alpha=0.55)
    for name, label, ratio in zip(
        ("xlabel", "ylabel"), ("PC 1", "PC 2"), embedding.explained_variance_ratio, strict=False
    ):
        axis.set(**{name: f"{label} ({ratio:.0%} of the variance)"})


def _density(axis: Any, plane: np.ndarray, colour: np.ndarray) -> None:
    """A picture in place of points: the more frames in a pixel the stronger the colour of most."""
    from matplotlib.colors import to_rgb

    low, high = plane.min(axis=0), plane.max(axis=0)
    width = np.where(high > low, high - low, 1.0)
    column, row = (
        np.minimum((plane - low) / width * DENSITY_PIXELS, DENSITY_PIXELS - 1).astype(np.int64).T
    )
    pixel = row * DENSITY_PIXELS + column
    kinds, counts = np.unique(pixel * len(COLOURS) + colour, return_counts=True)
    kinds = kinds[np.argsort(counts, kind="stable")]  # the last colour given to a pixel stays
    frames = np.bincount(pixel, minlength=DENSITY_PIXELS**2)
    image = np.zeros((DENSITY_PIXELS**2, 4))
    image[kinds // len(COLOURS), :3] = np.array([to_rgb(c) for c in COLOURS])[kinds % len(COLOURS)]
    image[:, 3] = np.where(frames > 0, 0.25 + 0.75 * np.log1p(frames) / np.log1p(frames.max()), 0)
    axis.imshow(
        image.reshape(DENSITY_PIXELS, DENSITY_PIXELS, 4),
        origin="lower",
        extent=(low[0], low[0] + width[0], low[1], low[1] + width[1]),
        aspect="auto",
        interpolation="nearest",
    )
    axis.set_title(f"1 (pale) to {frames.max():,} frames in a pixel", fontsize=9, loc="right")


def _marks(axis: Any, points: np.ndarray, *, marker: str, colour: str, label: str) -> None:
    """Points that stand out; where they are very many, black dots that leave the map visible."""
    if len(points) > MARKS:
        axis.scatter(*points.T, marker=marker, s=2.5, c="black", lw=0, label=label)
    elif len(points):
        size = np.clip(4000 / len(points), 9, 34)
        axis.scatter(
            *points.T, marker=marker, s=size, c=colour, edgecolors="black", lw=0.8, label=label
        )


def _cluster_bars(axis: Any, **counts: np.ndarray) -> None:
    """Counts by cluster, largest cluster first; many clusters share bars."""
    n_clusters = len(counts["frames"])
    each = -(-n_clusters // CLUSTER_BARS)
    starts = np.arange(0, n_clusters, each)
    axis.bar(
        starts,
        np.add.reduceat(counts["frames"], starts),
        each * 0.85,
        align="edge",
        color=COLOURS[1],
        label="frames",
    )
    marks = {"labelled before": (0.25, "s", "grey"), "selected": (0.6, "o", COLOURS[0])}
    for name, (place, marker, colour) in marks.items():
        if name in counts:
            heights = np.add.reduceat(counts[name], starts)
            at = (starts + place * each)[heights > 0]
            axis.plot(at, heights[heights > 0], marker, ms=4, color=colour, label=name)
    bars = "cluster" if each == 1 else f"cluster, {each} in a bar"
    axis.set(xlabel=f"{bars}, largest first", ylabel="frames", yscale="log")
    axis.set_ylim(bottom=0.7)
    legend(axis)
