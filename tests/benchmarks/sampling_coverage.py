"""Every way to select, on real structures: coverage, and the distance of what was left out.

    python tests/benchmarks/sampling_coverage.py set.extxyz --samples 20 40 80

The pool is four fifths of the structures, at random; the fifth held out is projected on the pool's
axes. Random parts are repeated with as many splits and seeds as asked for. Distances are in units
of the map's radius, and all is measured where the components explain 99.9 % of the variance, with
more of them than any method sees.
"""

# ruff: noqa: T201 - a script prints

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from mlip_assets.campaign import DescriptorSettings
from mlip_assets.descriptors import soap_power_spectrum
from mlip_assets.sampling import cluster_pool, coverage_score, fit_embedding, select_frames
from mlip_assets.sampling.distances import nearest

PAPER = {"components": "kaiser"}, {"weighting": "explained_variance", "clustering": "birch"}
WAYS = {
    "random": ({}, {}, "random"),
    "uniform_stride": ({}, {}, "uniform_stride"),
    "fps": ({}, {}, "fps"),
    "direct": ({}, {}, "direct"),
    "direct, weighted": ({}, {"weighting": "explained_variance"}, "direct"),
    "direct, birch": ({}, {"clustering": "birch"}, "direct"),
    "direct, as in the paper": (*PAPER, "direct"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="structures, any format ASE reads")
    parser.add_argument("--samples", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    print("| set | n | selection | coverage | pool P50 | pool P99 | held-out P50 | held-out P99 |")
    print("|---|---|---|---|---|---|---|---|")
    for file in given.files:
        rows = describe(read(file, ":"))
        for n_samples in given.samples:
            for way in WAYS:
                told = [measure(rows, n_samples, way, seed) for seed in range(given.seeds)]
                mean, spread = np.mean(told, axis=0), np.std(told, axis=0, ddof=1)
                cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)]
                print(f"| {file.stem} | {n_samples} | {way} | {' | '.join(cells)} |", flush=True)
    return 0


def describe(structures: list[Atoms]) -> np.ndarray:
    """Averaged SOAP (n_structures, n_features) at the pipeline's defaults."""
    settings = DescriptorSettings()
    species = sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})
    return np.concatenate(
        [
            soap_power_spectrum(
                atoms.positions,
                atoms.cell.array,
                atoms.pbc,
                atoms.numbers,
                species=species,
                r_cut=settings.r_cut,
                n_max=settings.n_max,
                l_max=settings.l_max,
                sigma=settings.sigma,
                average="outer",
                dtype=np.float32,
            )
            for atoms in structures
        ]
    )


def measure(rows: np.ndarray, n_samples: int, way: str, seed: int) -> tuple[float, ...]:
    """Coverage score, and P50 and P99 of the distances from the pool and from what was held out."""
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    held_out, pool = np.split(shuffled, [len(rows) // 5])
    pool.sort()
    embedding_settings, cluster_settings, method = WAYS[way]
    embedding = fit_embedding(rows[pool], **embedding_settings)
    clusters = cluster_pool(embedding, n_samples, seed=seed, **cluster_settings)
    chosen = select_frames(embedding, clusters, n_samples, method=method, seed=seed).indices
    ruler = fit_embedding(rows[pool], variance=0.999)
    percentiles: list[float] = []
    for scores in (
        np.delete(ruler.scores, chosen, axis=0),
        ruler.axes.project(rows[held_out]),
    ):
        distances = nearest(scores, ruler.scores[chosen])[1] / ruler.axes.radius
        percentiles += np.percentile(distances, [50, 99]).tolist()
    return coverage_score(ruler.scores, chosen), *percentiles


if __name__ == "__main__":
    sys.exit(main())
