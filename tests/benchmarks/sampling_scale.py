"""DIRECT on a descriptor matrix larger than its memory: wall time of every step, peak memory.

    python tests/benchmarks/sampling_scale.py --frames 100000 1000000

Synthetic descriptors of walkers that wander in a few hidden variables, which the features mix
smoothly, are written part by part. A child process selects from each matrix and reports time and memory.
"""

# ruff: noqa: T201 - a script prints

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from mlip_assets.descriptors import DescriptorMatrix, descriptor_schema
from mlip_assets.descriptors.matrix import commit, write_part
from mlip_assets.sampling import cluster_pool, fit_embedding, measure_coverage, select_frames

N_HIDDEN, WALKER_FRAMES = 12, 2000
PART_FRAMES = 2 * WALKER_FRAMES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--features", type=int, default=252)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--work", type=Path, default=Path("data/benchmarks/sampling-scale"))
    parser.add_argument("--select", type=Path, metavar="FOLDER", help="input of a child process")
    given = parser.parse_args()
    if given.select:
        print(json.dumps(select(given.select, given.samples)))
        return 0
    results = []
    for n_frames in given.frames:
        folder = given.work / f"{n_frames}x{given.features}"
        if not (folder / "_manifest.json").exists():
            generate(folder, n_frames, given.features)
        results.append(measured(folder, given.samples))
        print(json.dumps(results[-1], indent=1), flush=True)
    for small, large in itertools.pairwise(results):
        growth = large["selected_s"] / small["selected_s"]
        frames = large["n_frames"] / small["n_frames"]
        print(f"{frames:g} times the frames, {growth:.1f} times the time")
    return 0


def generate(folder: Path, n_frames: int, n_features: int, seed: int = 0) -> DescriptorMatrix:
    """Write descriptors (n_frames, n_features) of walkers, each near a different point."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(N_HIDDEN, n_features)) / np.sqrt(N_HIDDEN)
    size = np.geomspace(1, 0.05, N_HIDDEN)
    schema, parts = descriptor_schema(n_features, {"synthetic": seed}), {}
    for start in range(0, n_frames, PART_FRAMES):
        ids = np.arange(start, min(start + PART_FRAMES, n_frames))
        places = rng.normal(size=(-(-len(ids) // WALKER_FRAMES), N_HIDDEN))
        hidden = np.repeat(places, WALKER_FRAMES, axis=0)[: len(ids)]
        hidden += 0.5 * rng.normal(size=hidden.shape)
        rows = np.tanh((hidden * size) @ mixing)
        rows += 0.01 * rng.normal(size=rows.shape)
        name = f"{start:012d}.parquet"
        write_part(folder / name, ids, rows.astype(np.float32), schema)
        parts[name] = len(ids)
    return commit(folder, schema, parts)


def measured(folder: Path, n_samples: int) -> dict[str, float]:
    """What a separate process measures when it selects from the matrix in a folder."""
    command = [sys.executable, __file__, "--select", str(folder), "--samples", str(n_samples)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{folder}: {ended.stderr}")
    return json.loads(ended.stdout)


def select(folder: Path, n_samples: int) -> dict[str, float]:
    """Select, and measure the selection; seconds since the start at the end of each step."""
    warm_up()
    started = time.perf_counter()
    ends = {}

    def ended(step: str) -> None:
        ends[f"{step}_s"] = round(time.perf_counter() - started, 2)

    matrix = DescriptorMatrix(folder)
    embedding = fit_embedding(matrix)
    ended("embedded")
    clusters = cluster_pool(embedding, n_samples)
    ended("clustered")
    selection = select_frames(embedding, clusters, n_samples)
    ended("selected")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = measure_coverage(embedding, selection.indices, seed=0, n_random=5)
    ended("coverage_measured")
    return {
        "n_frames": matrix.n_frames,
        "n_features": matrix.n_features,
        "n_components": embedding.scores.shape[1],
        "n_selected": len(np.unique(selection.indices)),
        "clusters_hit": len(np.unique(clusters.cluster[selection.indices])),
        **ends,
        "peak_MiB": round(peak * (1 if sys.platform == "linux" else 1 / 1024) / 1024),
        "coverage": round(report.selection.score, 4),
        "coverage_random_mean": round(report.random_mean.score, 4),
        "distance_p99": round(report.selection.distance_p99, 4),
        "distance_p99_random_mean": round(report.random_mean.distance_p99, 4),
    }


def warm_up() -> None:
    """Import and compile what is imported and compiled once in a process."""
    embedding = fit_embedding(np.random.default_rng(0).normal(size=(50, 3)))
    select_frames(embedding, cluster_pool(embedding, 5), 5)


if __name__ == "__main__":
    sys.exit(main())
