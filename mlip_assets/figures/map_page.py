"""The map of one campaign as a web page: a click on a point shows its structure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets.sampling import Clusters, Embedding
from mlip_assets.trajectory import FRAME_ID_STRIDE

#: Largest number of frames, and of atoms in them, both of selected and of other frames: a page of
#: ten megabytes or so, which a browser opens immediately.
MAX_FRAMES, MAX_ATOMS = 2000, 100_000
#: Components among which a reader can choose the axes.
_MAX_COMPONENTS = 6
_DECIMALS_A = 3

# What the page may do is stated in it: run what it holds, and ask no server for anything.
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; \
font-src data:; worker-src blob:">
<title>{title}</title>
<style>
body {{ margin: 0; font-family: sans-serif; }}
p {{ margin: 0.6em 1em; font-size: 0.9em; }}
main {{ display: grid; grid-template-columns: 3fr 2fr; gap: 0.5em; padding: 0 1em; }}
#page-map {{ height: calc(100vh - 4em); }}
#page-structure {{ height: calc(100vh - 11em); }}
</style>
</head>
<body>
<p>{caption}</p>
<main>
<div><div id="page-meta" hidden></div><div id="page-map"></div></div>
<div><div id="page-structure"></div><div id="page-info"></div></div>
</main>
<script>{chemiscope}</script>
<script type="application/json" id="dataset">{dataset}</script>
<script>
const dataset = JSON.parse(document.getElementById("dataset").textContent);
const parts = Object.fromEntries(
  ["meta", "map", "structure", "info"].map((part) => [part, "page-" + part]),
);
Chemiscope.DefaultVisualizer.load(parts, dataset).then(
  (shown) => {{ window.visualizer = shown; }},
  (error) => {{ document.querySelector("p").textContent = error; }},
);
</script>
</body>
</html>
"""


def map_page(
    name: str,
    embedding: Embedding,
    clusters: Clusters,
    selected: Sequence[Atoms],
    load: Callable[[NDArray[np.int64]], list[Atoms]],
    *,
    seed: int,
) -> str:
    """One HTML file that works without a network, drawn by chemiscope.

    Chemiscope: Fraux, Cersonsky and Ceriotti, J. Open Source Softw. 5, 2117 (2020).

    Parameters
    ----------
    name
        Of the campaign.
    embedding, clusters
        Of all frames, in the same order.
    selected
        Frames that were chosen; their ``info`` has all that a trajectory's frames have, and
        ``reason``.
    load
        Gives the frames with these identifiers (n,), in that order.
    seed
        Decides which of the frames not selected are shown as well.
    """
    by_id = np.argsort(embedding.frame_id)
    picks = _thinned(selected)
    every_id = [atoms.info["frame_id"] for atoms in selected]
    others = load(_others(embedding.frame_id[by_id], every_id, _mean_size(selected), seed))
    frames = [*_fitting(others), *picks]  # drawn in this order, so that none hides a pick
    ids = [atoms.info["frame_id"] for atoms in frames]
    rows = by_id[np.searchsorted(embedding.frame_id, ids, sorter=by_id)]
    n_others = len(frames) - len(picks)
    title = f"{name}: map of {len(by_id)} frames"
    caption = (
        f"<b>{name}</b>: {len(picks)} of {len(selected)} selected frames (large) among {n_others} "
        f"of the {len(by_id) - len(selected)} others. Click on one to see its structure; (i) "
        "below it shows its energy, temperature, walker and why it was selected."
    )
    dataset = _dataset(
        title,
        frames,
        embedding.scores[rows, :_MAX_COMPONENTS],
        clusters.cluster[rows],
        np.arange(len(frames)) >= n_others,
    )
    bundle = files("chemiscope") / "sphinx" / "static" / "chemiscope.min.js"
    return _PAGE.format(
        title=title,
        caption=caption,
        chemiscope=bundle.read_text(encoding="utf-8").replace("</script", r"<\/script"),
        dataset=json.dumps(dataset, separators=(",", ":")).replace("<", r"\u003c"),
    )


def _others(
    ids: NDArray[np.int64], selected: Sequence[int], mean_size: float, seed: int
) -> NDArray[np.int64]:
    """Random frames that are not selected; their number follows from their estimated size."""
    rest = np.setdiff1d(ids, selected)
    most = min(len(rest), MAX_FRAMES, int(MAX_ATOMS / mean_size) + 1)
    return np.sort(np.random.default_rng(seed).choice(rest, most, replace=False))


def _thinned(frames: Sequence[Atoms]) -> list[Atoms]:
    """All frames, or evenly spaced ones that fit the page."""
    most = min(MAX_FRAMES, int(MAX_ATOMS / _mean_size(frames)) + 1)
    step = max(1, -(-len(frames) // most))
    return _fitting(frames[::step])


def _fitting(frames: Sequence[Atoms]) -> list[Atoms]:
    """The first frames, at least one, that together have few enough atoms."""
    n_atoms = np.cumsum([len(atoms) for atoms in frames])
    n_fitting = int(np.searchsorted(n_atoms, MAX_ATOMS, side="right"))
    return list(frames[: max(n_fitting, 1)])


def _mean_size(frames: Sequence[Atoms]) -> float:
    return float(np.mean([len(atoms) for atoms in frames]))


def _dataset(
    title: str,
    frames: Sequence[Atoms],
    scores: NDArray[np.float64],
    cluster: NDArray[np.int64],
    selected: NDArray[np.bool_],
) -> dict[str, Any]:
    import chemiscope

    infos = [atoms.info for atoms in frames]
    energies = [atoms.info["surrogate_energy_eV"] / len(atoms) for atoms in frames]

    def quantity(values: Any, **unit: str) -> dict[str, Any]:
        return {"target": "structure", "values": np.asarray(values).tolist(), **unit}

    def column(key: str) -> list[Any]:
        return [info[key] for info in infos]

    properties = {
        **{f"PC {i + 1}": quantity(np.round(score, 5)) for i, score in enumerate(scores.T)},
        "cluster": quantity(cluster),
        "selected": quantity(["selected" if chosen else "not selected" for chosen in selected]),
        "mark": quantity(selected.astype(float)),
        "energy": quantity(np.round(energies, 5), units="eV/atom"),
        "temperature": quantity(np.round(column("temperature_K"), 1), units="K"),
        "target temperature": quantity(column("target_temperature_K"), units="K"),
        "walker": quantity(column("walker")),
        "walker number": quantity(np.array(column("frame_id")) // FRAME_ID_STRIDE),
        "frame_id": quantity(column("frame_id")),
        "reason": quantity([info.get("reason", "") for info in infos]),
    }
    axes = list(properties)[: scores.shape[1]]
    periodic = any(atoms.pbc.any() for atoms in frames)
    settings = chemiscope.quick_settings(
        x=axes[0],
        y=axes[1] if len(axes) > 1 else "energy",
        map_color="cluster",
        symbol="selected",
        periodic=periodic,
        map_settings={
            "palette": "viridis",
            "size": {"property": "mark", "factor": 35 if selected.sum() < 200 else 12},
            "useLOD": False,  # every frame is shown, however many are near it
        },
    )
    settings["pinned"] = [int(selected.argmax())]
    plain = [
        Atoms(a.numbers, a.positions.round(_DECIMALS_A), cell=a.cell, pbc=a.pbc) for a in frames
    ]
    dataset: dict[str, Any] = chemiscope.create_input(
        structures=plain, metadata={"name": title}, properties=properties, settings=settings
    )
    return dataset
