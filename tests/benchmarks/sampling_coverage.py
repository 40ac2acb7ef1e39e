"""Every way to select, on real structures: coverage, and what was left out, by distance and by energy.

    python tests/benchmarks/sampling_coverage.py set.extxyz --samples 10 20 40 80 --seeds 20

The pool is four fifths of the structures, at random; the fifth held out is projected on the pool's
axes. As many splits are made as there are seeds, the same for every way, and random selections draw
anew in each. Distances are in units of the map's radius, and are measured where the components
explain 99.9 % of the variance, with more of them than any method sees. Energies, meV/atom, are
predicted from those components by ridge regression on what was selected: a stand-in that shows
which selections teach more, not a potential. Cells are mean ± standard deviation over the splits;
the last column counts the splits in which each of the four held-out numbers before it is below that
of the random selection.
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
HELD_OUT = ["P50", "P99", "energy MAE", "energy P99"]
COLUMNS = ["coverage", "pool P99", *HELD_OUT]
DECIMALS = [3, 2, 2, 2, 1, 0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="with energies; any format ASE reads")
    parser.add_argument("--samples", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--figure", type=Path, help="picture of the first file's numbers")
    given = parser.parse_args()
    results: dict[tuple[Path, int, str], np.ndarray] = {}
    for file in given.files:
        structures = read(file, ":")
        rows = describe(structures)
        energies = np.array([1e3 * s.get_potential_energy() / len(s) for s in structures])
        print(f"\n{file.stem}: pool {len(rows) - len(rows) // 5}, held out {len(rows) // 5}, ")
        print(f"{given.seeds} splits\n\n| n | selection | {' | '.join(COLUMNS)} | below random |")
        print("|---" * (3 + len(COLUMNS)) + "|")
        for n_samples in given.samples:
            for way in WAYS:
                splits = [measure(rows, energies, n_samples, way, s) for s in range(given.seeds)]
                found = results[file, n_samples, way] = np.array(splits)
                wins = (found < results[file, n_samples, "random"]).sum(axis=0)[-len(HELD_OUT) :]
                spread = zip(found.mean(axis=0), found.std(axis=0, ddof=1), DECIMALS, strict=True)
                cells = [str(n_samples), way, *(f"{m:.{d}f} ± {s:.{d}f}" for m, s, d in spread)]
                print("|", " | ".join([*cells, " ".join(map(str, wins))]), "|", flush=True)
    if given.figure:
        draw(
            {key[1:]: found for key, found in results.items() if key[0] == given.files[0]}
        ).savefig(given.figure, dpi=120)
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
                average=settings.average,
                dtype=settings.precision,
            ).astype(np.float32)
            for atoms in structures
        ]
    )


def measure(
    rows: np.ndarray, energies: np.ndarray, n_samples: int, way: str, seed: int
) -> list[float]:
    """The numbers of ``COLUMNS`` for one way on one split."""
    from sklearn.linear_model import RidgeCV

    shuffled = np.random.default_rng(seed).permutation(len(rows))
    held_out, pool = np.split(shuffled, [len(rows) // 5])
    pool.sort()
    embedding_settings, cluster_settings, method = WAYS[way]
    embedding = fit_embedding(rows[pool], **embedding_settings)
    clusters = cluster_pool(embedding, n_samples, seed=seed, **cluster_settings)
    chosen = select_frames(embedding, clusters, n_samples, method=method, seed=seed).indices
    ruler = fit_embedding(rows[pool], variance=0.999)
    unseen = ruler.pca.transform(rows[held_out])

    def gaps(scores: np.ndarray) -> np.ndarray:
        return nearest(scores, ruler.scores[chosen])[1] / ruler.pca.radius

    model = RidgeCV(np.geomspace(1e-3, 1e3, 13))
    model.fit(ruler.scores[chosen], energies[pool[chosen]])
    errors = np.abs(model.predict(unseen) - energies[held_out])
    return [
        coverage_score(ruler.scores, chosen),
        np.percentile(gaps(np.delete(ruler.scores, chosen, axis=0)), 99),
        *np.percentile(gaps(unseen), [50, 99]),
        errors.mean(),
        np.percentile(errors, 99),
    ]


def draw(results: dict[tuple[int, str], np.ndarray]):
    """Coverage and the held-out distances over the number of frames selected."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    samples = sorted({n for n, _ in results})
    colours = {"random": "0.5", "uniform_stride": "C1", "fps": "C2", "direct": "C0"}
    panels = ["coverage", *HELD_OUT[:2]]
    for axes, column in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for way, colour in colours.items():
            found = np.array([results[n, way][:, COLUMNS.index(column)] for n in samples])
            mean, spread = found.mean(axis=1), found.std(axis=1, ddof=1)
            axes.plot(samples, mean, "o-", color=colour, label=way, markersize=4)
            axes.fill_between(samples, mean - spread, mean + spread, color=colour, alpha=0.15)
        axes.set(
            xlabel="frames selected", title=column if column == "coverage" else "held-out " + column
        )
        axes.set(xscale="log", xticks=samples, xticklabels=samples)
        axes.minorticks_off()
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(main())
