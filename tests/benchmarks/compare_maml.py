"""Beside maml, the authors' own DIRECT, from a separate environment.

    python3 -m venv maml && maml/bin/pip install maml==2025.4.3
    python tests/benchmarks/compare_maml.py --maml-python maml/bin/python

All get the same arrays, each in a process that may use so much memory and time; a selection that
comes about is measured on our map, where coverage is that of an unweighted component. maml's
settings are left as they come, starting threshold included.
"""

# ruff: noqa: T201 - a script prints

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

Selector = Callable[[np.ndarray, int], Iterable[int]]

PAPER = {"components": "kaiser", "weighting": "explained_variance", "clustering": "birch"}
#: Frames, distinct ones among them, features, and frames wanted.
CASES = {
    "as many as are distinct": (1_900, 200, 128, 200),
    "more than are distinct": (1_000, 40, 128, 50),
    "a trajectory": (20_000, 20_000, 128, 1_000),
    "as many as in the paper's Ti-H pool": (274_000, 274_000, 128, 954),
    "as many, n = 5000": (274_000, 274_000, 128, 5_000),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maml-python", type=Path, help="python of an environment with maml")
    parser.add_argument("--memory-gib", type=float, default=10, help="address space of a process")
    parser.add_argument("--wall-s", type=float, default=600)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--select", nargs=3, metavar=("WHO", "FOLDER", "N"), help="for a child")
    given = parser.parse_args()
    if given.select:
        who, folder, n_samples = given.select
        select(who, Path(folder), int(n_samples), int(given.memory_gib * 2**30))
        return 0
    pythons = {"ours": Path(sys.executable), "ours, as in the paper": Path(sys.executable)}
    if given.maml_python:
        pythons["maml"] = given.maml_python
    print("| case | frames | wanted | by | got | wall, s | peak, MiB | coverage | P99 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in given.cases:
        n_frames, n_distinct, n_features, n_samples = CASES[case]
        with tempfile.TemporaryDirectory() as folder:
            rows = make_rows(Path(folder), n_frames, n_distinct, n_features)
            for who, python in pythons.items():
                limits = ["--memory-gib", str(given.memory_gib)]
                result = run(python, who, Path(folder), n_samples, limits, given.wall_s)
                cells = [case, f"{n_frames:,}", n_samples, who, *report(rows, result)]
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return 0


def make_rows(folder: Path, n_frames: int, n_distinct: int, n_features: int) -> np.ndarray:
    """The walkers of ``sampling_scale.py``, each distinct frame equally often, shuffled."""
    from sampling_scale import generate

    matrix = generate(folder / "matrix", n_distinct, n_features)
    distinct = np.concatenate([batch for _, batch in matrix.iter_batches(4096)])
    which = np.random.default_rng(0).permutation(np.arange(n_frames) % n_distinct)
    rows = distinct if n_frames == n_distinct else distinct[which]
    np.save(folder / "rows.npy", rows)
    return rows


def run(
    python: Path, who: str, folder: Path, n_samples: int, limits: list[str], wall_s: float
) -> dict[str, object]:
    """What a child process reports, or how it ended."""
    command = [str(python), __file__, *limits, "--select", who, str(folder), str(n_samples)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=wall_s, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"ended_by": f"time limit of {wall_s:g} s"}
    if ended.returncode:
        return {"ended_by": ended.stderr.strip().splitlines()[-1]}
    return json.loads(ended.stdout.splitlines()[-1])


def select(who: str, folder: Path, n_samples: int, memory: int) -> None:
    """Select in this process, after the imports are done and within the memory given."""
    selector = maml() if who == "maml" else ours(**({} if who == "ours" else PAPER))
    rows = np.load(folder / "rows.npy")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    started = time.perf_counter()
    indices = selector(rows, n_samples)
    result = {
        "wall_s": round(time.perf_counter() - started, 1),
        "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "indices": sorted({int(index) for index in indices}),
    }
    print(json.dumps(result))


def ours(**settings: Any) -> Selector:
    from mlip_assets.sampling import direct_select

    direct_select(np.random.default_rng(0).normal(size=(50, 3)), 5)  # compiles
    return lambda rows, n_samples: direct_select(rows, n_samples, **settings).indices


def maml() -> Selector:
    from maml.sampling.clustering import BirchClustering
    from maml.sampling.direct import DIRECTSampler

    def selected(rows: np.ndarray, n_samples: int) -> list[int]:
        sampler = DIRECTSampler(structure_encoder=None, clustering=BirchClustering(n=n_samples))
        return sampler.fit_transform(rows)["selected_indexes"]

    return selected


def report(rows: np.ndarray, result: dict[str, object]) -> list[object]:
    """Distinct frames, wall time, peak memory, coverage and P99 (a random selection's), or the end."""
    if "indices" not in result:
        return [result["ended_by"], "", "", "", ""]
    from mlip_assets.sampling import fit_embedding, measure_coverage

    indices = np.array(result["indices"])
    n_distinct = len(np.unique(rows[indices], axis=0))
    measured = measure_coverage(fit_embedding(rows), indices, seed=0, n_random=5)
    found, random = measured.selection, measured.random_mean
    return [
        n_distinct,
        result["wall_s"],
        result["peak_MiB"],
        f"{found.score:.3f} ({random.score:.3f})",
        f"{found.distance_p99:.3f} ({random.distance_p99:.3f})",
    ]


if __name__ == "__main__":
    sys.exit(main())
