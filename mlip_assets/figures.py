"""Every picture and table shown as metadata in the UI."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

    from mlip_assets.descriptors import DescriptorMatrix
    from mlip_assets.dynamics import Trajectory
    from mlip_assets.labelling import LabelledDatabase
    from mlip_assets.sampling import Clusters, CoverageReport, Embedding
    from mlip_assets.training import TrainedModel

#: Rows shown of a long table; the whole is in the stored file.
TABLE_ROWS = 100
#: The same, of a table that is looked up row by row.
PICK_ROWS = 1000
#: Points drawn one by one on a map; more become a density.
SCATTER_POINTS = 5000
#: Pixels of a density along each axis.
DENSITY_PIXELS = 280
#: Marked points that get an outline.
MARKS = 400
#: Labels named on their scatter: the farthest, beyond so many robust standard deviations.
NAMED_OUTLIERS, OUTLIER_SCORE = 8, 4.0
#: Clusters that get a bar each; more share bars.
CLUSTER_BARS = 40

#: Colours that people with any colour vision tell apart (P. Tol, "muted").
_COLOURS = (
    "#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#44AA99", "#882255", "#999933",
    "#AA4499",
)  # fmt: skip
#: Points of all the curves in one panel together.
CURVE_POINTS = 50_000
#: Frames a radial distribution is averaged over.
RDF_FRAMES = 60


def markdown(picture: bytes) -> dg.MetadataValue:
    """A picture the UI opens in a dialog."""
    encoded = base64.b64encode(picture).decode()
    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{encoded})")


def table(rows: Iterable[dict[str, Any]], most: int = TABLE_ROWS) -> dg.MetadataValue:
    """The first rows of a table, numbers rounded to what a reader compares."""
    kept = list(islice(rows, most))
    if not kept:
        return dg.MetadataValue.text("none")
    return dg.MetadataValue.table(
        [dg.TableRecord({key: _readable(value) for key, value in row.items()}) for row in kept]
    )


def seed_table(structures: Sequence[Atoms]) -> dg.MetadataValue:
    """Name, kind, formula and density of every seed."""
    return table(
        {
            "seed": atoms.info["seed_name"],
            "kind": atoms.info["seed_kind"],
            "formula": atoms.get_chemical_formula(),
            "atoms": len(atoms),
            "periodic": bool(atoms.pbc.all()),
            "volume_A3_per_atom": atoms.get_volume() / len(atoms),
        }
        for atoms in structures
    )


def seed_pictures(structures: Sequence[Atoms]) -> bytes:
    """Every seed, seen along a slightly tilted axis."""
    from ase.visualize.plot import plot_atoms

    shown = structures[:12]
    columns = min(len(shown), 4)
    figure, axes = canvas(-(-len(shown) // columns), columns, 2.6, 2.6)
    for axis in axes:
        axis.set_axis_off()
    for axis, atoms in zip(axes, shown, strict=False):
        plot_atoms(atoms, axis, rotation="10x,-15y", radii=0.4)
        axis.set_title(atoms.info["seed_name"], fontsize=9)
    return png(figure)


def walker_table(trajectory: Trajectory) -> dg.MetadataValue:
    """How every walker ended, and how fast it was."""
    return table(
        {
            "walker": walker.name,
            "conditions": walker.conditions,
            "atoms": walker.n_atoms,
            "steps": walker.n_steps,
            "frames": walker.n_frames,
            "steps_per_s": walker.steps_per_s,
            "retries": sum(event.resumed_from_step is not None for event in walker.events),
            "stopped_by": walker.stopped_by or "",
        }
        for walker in trajectory.walkers
    )


def guard_table(trajectory: Trajectory) -> dg.MetadataValue:
    """Every guard that was broken, and what came of it."""
    return table(
        {
            "walker": walker.name,
            "step": event.step,
            "time_fs": event.time_fs,
            "guard": event.reason,
            "detail": event.detail,
            "target_temperature_K": event.target_temperature_K,
            "timestep_fs": event.timestep_fs,
            "then": "stopped"
            if event.resumed_from_step is None
            else f"retried from step {event.resumed_from_step}",
        }
        for walker in trajectory.walkers
        for event in walker.events
    )


def trajectory_plot(trajectory: Trajectory) -> bytes:
    """Temperature, energy and pressure of every walker against time; dotted, what was aimed at.

    Below them, of a committee, the largest spread of a force.
    """
    from mlip_assets.dynamics.trajectory import FRAME_ID_STRIDE

    scalars = trajectory.scalars()
    every = max(1, trajectory.n_frames // CURVE_POINTS)
    columns = {
        name: scalars[name].to_numpy()
        for name in scalars.column_names
        if name not in ("walker", "step")
    }
    walker = columns["frame_id"] // FRAME_ID_STRIDE
    colours = _colours(trajectory)
    target_of = {report.number: report.target_temperature_K for report in trajectory.walkers}
    spread = columns["force_spread_eV_per_A"]
    has_spread = bool(np.isfinite(spread).any())
    figure, (upper, middle, lower, *lowest) = canvas(3 + has_spread, 1, 8, 2.2)
    for rows in np.split(np.arange(len(walker)), np.flatnonzero(np.diff(walker)) + 1):
        if len(rows) == 0:
            continue
        picked = rows[::every]
        time_ps = columns["time_fs"][picked] / 1000
        style = {"color": colours[target_of[walker[rows[0]]]], "lw": 0.7}
        upper.plot(time_ps, columns["temperature_K"][picked], alpha=0.7, **style)
        upper.plot(time_ps, columns["target_temperature_K"][picked], ls=":", **style)
        energy = columns["energy_eV"][picked] - columns["energy_eV"][rows[0]]
        middle.plot(time_ps, energy, alpha=0.7, **style)
        lower.plot(time_ps, columns["pressure_GPa"][picked], alpha=0.7, **style)
        for axis in lowest:
            axis.plot(time_ps, spread[picked], alpha=0.7, **style)
    upper.set_ylabel("temperature / K")
    middle.set_ylabel("energy change / eV")
    lower.set_ylabel("pressure / GPa")
    for axis in lowest:
        axis.set_ylabel("force spread / eV/Å")
    (lowest or [lower])[-1].set_xlabel("time / ps")
    return png(figure)


def rdf_plot(trajectory: Trajectory, seeds: Sequence[Atoms]) -> bytes:
    """Radial distribution of the frames of every seed, by final temperature, over the seed's own."""
    from mlip_assets.dynamics.rdf import radial_distribution
    from mlip_assets.dynamics.trajectory import FRAME_ID_STRIDE

    shown = list(seeds[:12])
    columns = min(len(shown), 3)
    figure, axes = canvas(-(-len(shown) // columns), columns, 3.4, 2.4)
    frame_id = trajectory.scalars()["frame_id"].to_numpy()
    for axis, seed in zip(axes, shown, strict=False):
        highest = 0.0
        for target, colour in _colours(trajectory).items():
            numbers = [
                walker.number
                for walker in trajectory.walkers
                if walker.seed_name == seed.info["seed_name"]
                and walker.target_temperature_K == target
            ]
            own = frame_id[np.isin(frame_id // FRAME_ID_STRIDE, numbers)]
            if len(own) == 0:
                continue
            picked = own[:: max(1, len(own) // RDF_FRAMES)]
            r, g = radial_distribution(trajectory.iter_frames(picked))
            axis.plot(r, g, colour, lw=1, label=f"{target:g} K")
            highest = max(highest, g.max())
        r, g = radial_distribution([seed])
        axis.fill_between(r, g, color="0.85", lw=0, step="mid", label="seed")
        axis.set(title=seed.info["seed_name"], xlabel="distance / Å")
        axis.set_ylim(0, 1.2 * highest or None)
        axis.legend(fontsize=6)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    return png(figure)


def _colours(trajectory: Trajectory) -> dict[float, str]:
    """A colour for every temperature that walkers end at."""
    targets = sorted({walker.target_temperature_K for walker in trajectory.walkers})
    return {target: f"C{i % 10}" for i, target in enumerate(targets)}


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
    right.bar(np.arange(1, len(ratios) + 1), ratios, color=_COLOURS[1], label="each")
    right.plot(
        np.arange(1, len(ratios) + 1), np.cumsum(ratios), ".-", color=_COLOURS[0], label="sum"
    )
    right.set(xlabel="component", ylabel="share of the variance", ylim=(0, 1.02))
    _legend(right)
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
    _legend(left)
    counts = {
        "frames": clusters.sizes,
        "selected": np.bincount(clusters.cluster[selected], minlength=len(clusters.sizes)),
    }
    if len(known):
        before = np.bincount(clusters.predict(known), minlength=len(clusters.sizes))
        counts["labelled before"] = before
    _cluster_bars(right, **counts)
    return png(figure)


def label_table(database: LabelledDatabase) -> dg.MetadataValue:
    """Every label beside what the surrogate thought of the frame."""
    binding = database.binding_energies()
    return table(
        {
            "frame_id": int(atoms.info["frame_id"]),
            "seed_kind": atoms.info["seed_kind"],
            "atoms": len(atoms),
            "binding_energy_eV_per_atom": energy,
            "max_force_eV_per_A": np.linalg.norm(atoms.arrays["REF_forces"], axis=1).max(),
            "label_key": atoms.info["label_key"][:12],
        }
        for atoms, energy in zip(database.labelled, binding, strict=True)
    )


def failure_table(database: LabelledDatabase) -> dg.MetadataValue:
    """Every frame without a label and its reason."""
    return table(
        {
            "frame_id": failure.frame_id,
            "kind": failure.kind,
            "attempts": failure.attempts,
            "reason": failure.reason,
        }
        for failure in database.failed
    )


def label_plot(database: LabelledDatabase) -> bytes:
    """Binding energies and forces of the labelled frames by kind of seed, and outliers by name."""
    figure, (left, middle, right) = canvas(1, 3, 4.2, 3.6)
    binding = database.binding_energies()
    kinds = np.array([atoms.info["seed_kind"] for atoms in database.labelled])
    norms = [np.linalg.norm(atoms.arrays["REF_forces"], axis=1) for atoms in database.labelled]
    largest = np.array([norm.max() for norm in norms])
    names = sorted(set(kinds))
    if names:
        left.hist([binding[kinds == kind] for kind in names], bins=20, stacked=True, label=names)
        forces = [
            np.concatenate([n for n, k in zip(norms, kinds, strict=True) if k == kind])
            for kind in names
        ]
        middle.hist(forces, bins=20, stacked=True, label=names)
        middle.legend(fontsize=7)
    for kind in names:
        right.plot(largest[kinds == kind], binding[kinds == kind], "o", ms=3, alpha=0.7)
    for i in _outliers(np.stack([largest, binding], axis=1)):
        right.annotate(
            str(database.labelled[i].info.get("frame_id", i)),
            (largest[i], binding[i]),
            xytext=(-3, 3),
            textcoords="offset points",
            ha="right",
            fontsize=7,
        )
    left.set(xlabel="binding energy / eV per atom", ylabel="frames")
    middle.set(xlabel="force / eV/Å", ylabel="atoms")
    right.set(xlabel="largest force / eV/Å", ylabel="binding energy / eV per atom")
    right.set_title("outliers by frame_id", fontsize=9)
    return png(figure)


def _outliers(points: np.ndarray) -> np.ndarray:
    """Points far from the median along any axis, the farthest first."""
    finite = np.flatnonzero(np.isfinite(points).all(axis=1))
    if len(finite) == 0:
        return finite
    distances = np.abs(points[finite] - np.median(points[finite], axis=0))
    spread = 1.4826 * np.median(distances, axis=0)
    scores = np.max(distances / np.where(spread > 0, spread, np.inf), axis=1)
    order = np.argsort(-scores)[:NAMED_OUTLIERS]
    far: np.ndarray = finite[order[scores[order] > OUTLIER_SCORE]]
    return far


def parity_plot(trained: TrainedModel) -> bytes:
    """Predicted against labelled energies and forces of every split, with the held-out errors."""
    figure, axes = canvas(1, 2, 4.6, 4.2)
    errors = trained.metrics["splits"]
    panels = (
        ("energy", "eV/atom", "energy_rmse_meV_per_atom", "meV/atom"),
        ("forces", "eV/Å", "force_rmse_meV_per_A", "meV/Å"),
    )
    for axis, (quantity, unit, error, error_unit) in zip(axes, panels, strict=True):
        everything = []
        for split, marker in zip(errors, "o^s", strict=True):
            reference, predicted = (
                trained.parity[f"{split}_{quantity}_{of}"].ravel()
                for of in ("reference", "predicted")
            )
            everything += [reference, predicted]
            label = f"{split}: RMSE {errors[split][error]:.1f} {error_unit}"
            axis.plot(reference, predicted, marker, ms=3, alpha=0.6, lw=0, label=label)
        limits = np.concatenate(everything).min(), np.concatenate(everything).max()
        axis.plot(limits, limits, "k:", lw=0.8)
        axis.set_title(
            f"held-out {quantity}: RMSE {errors['test'][error]:.1f} {error_unit}", fontsize=10
        )
        axis.set(xlabel=f"DFT {quantity} / {unit}", ylabel=f"MACE {quantity} / {unit}")
        axis.legend(fontsize=7)
    return png(figure)


def error_table(trained: TrainedModel) -> dg.MetadataValue:
    """Errors by split, beside those of the mean predictor, and by kind of seed on the test set."""
    metrics = trained.metrics
    rows = [(name, errors) for name, errors in metrics["splits"].items()]
    rows += [(f"{name}: mean predictor", e) for name, e in metrics["mean_predictor"].items()]
    rows += [(f"test: {kind}", e) for kind, e in metrics["by_seed_kind"].get("test", {}).items()]
    return table({"set": name, **errors} for name, errors in rows)


def _plane(scores: np.ndarray) -> np.ndarray:
    """The first two components; a map with only one gets a flat second axis."""
    return scores[:, :2] if scores.shape[1] > 1 else np.c_[scores[:, 0], np.zeros(len(scores))]


def _map(axis: Any, embedding: Embedding, clusters: Clusters | None = None) -> None:
    """All frames in the plane of the first two components, in the colours of their clusters."""
    plane = _plane(embedding.scores)
    cluster = np.zeros(len(plane), dtype=np.int64) if clusters is None else clusters.cluster
    colour = cluster % len(_COLOURS)
    if len(plane) > SCATTER_POINTS:
        _density(axis, plane, colour)
    else:
        axis.scatter(*plane.T, c=np.take(_COLOURS, colour), s=9, lw=0, alpha=0.55)
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
    kinds, counts = np.unique(pixel * len(_COLOURS) + colour, return_counts=True)
    kinds = kinds[np.argsort(counts, kind="stable")]  # the last colour given to a pixel stays
    frames = np.bincount(pixel, minlength=DENSITY_PIXELS**2)
    image = np.zeros((DENSITY_PIXELS**2, 4))
    image[kinds // len(_COLOURS), :3] = np.array([to_rgb(c) for c in _COLOURS])[
        kinds % len(_COLOURS)
    ]
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
        color=_COLOURS[1],
        label="frames",
    )
    marks = {"labelled before": (0.25, "s", "grey"), "selected": (0.6, "o", _COLOURS[0])}
    for name, (place, marker, colour) in marks.items():
        if name in counts:
            heights = np.add.reduceat(counts[name], starts)
            at = (starts + place * each)[heights > 0]
            axis.plot(at, heights[heights > 0], marker, ms=4, color=colour, label=name)
    bars = "cluster" if each == 1 else f"cluster, {each} in a bar"
    axis.set(xlabel=f"{bars}, largest first", ylabel="frames", yscale="log")
    axis.set_ylim(bottom=0.7)
    _legend(axis)


def _legend(axis: Any) -> None:
    """Above the axes, where it hides nothing."""
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3,
        fontsize=8,
        frameon=False,
        borderpad=0.1,
        reverse=True,
    )


def canvas(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Sequence[Any]]:
    """A figure without pyplot, whose global state does not suit a long-lived server."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=95)  # a row of two is then as wide as the dialog
    return buffer.getvalue()


def _readable(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return float(f"{value:.5g}")
    return value.item() if isinstance(value, np.generic) else value
