"""Held-out errors of MACE against the number of DFT labels, for each selection method.

    python tests/benchmarks/learning_curve.py --work data/learning-curve --figure curve.png

For each random seed, silicon is explored from crystal, strained, rattled, vacancy and liquid cells at four
temperatures; ``direct``, ``random`` and ``uniform_stride`` select frames from this pool. GPAW labels the
selected frames, each frame once. MACE is fine-tuned from the bundled surrogate on each selection, and on that of
DIRECT also trained from random weights. The number of gradient steps does not depend on the number of
labels. The test frames are from two other explorations, from which no frame is selected. All results
are kept in ``--work``; an interrupted run resumes.
"""

# ruff: noqa: T201 - a script prints

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlip_assets.campaign import Campaign, TrainingSettings
from mlip_assets.descriptors import compute_descriptors
from mlip_assets.dynamics import plan_walkers, run_walkers
from mlip_assets.labelling import GpawEngine, LabelLedger, label_frames
from mlip_assets.sampling import direct_select
from mlip_assets.structures import build_seeds
from mlip_assets.surrogates import find_surrogate
from mlip_assets.training import evaluate, fit_mace
from mlip_assets.trajectory import Trajectory

METHODS = ("direct", "random", "uniform_stride")
#: Gradient steps of every fit, for any number of labels.
STEPS, BATCH = {"tuned": 400, "scratch": 1200}, 4
#: Cheap and the same for all, because selections are compared, not functionals.
ENGINE = GpawEngine(
    "PBE", cutoff_eV=250, k_spacing_per_A=0.6, smearing_eV=0.1, energy_convergence_eV=1e-5
)


def campaign(seed: int) -> Campaign:
    """An exploration of silicon that differs from others only by its random numbers."""
    return Campaign(
        name=f"silicon-{seed}",
        composition="Si",
        random_seed=seed,
        seeds={
            "kinds": ["crystal", "strained", "vacancy", "rattled", "liquid"],
            "crystal_atoms": 8,
        },
        exploration={
            "temperatures_K": [300, 800, 1500, 2200],
            "n_steps": 400,
            "sample_every": 10,
            "timestep_fs": 2,
        },
        sampling={"n_samples": 10},
    )


def explore(seed: int, work: Path) -> tuple[Trajectory, np.ndarray]:
    """The pool of one random seed, and its descriptors (n_frames, n_features)."""
    planned = campaign(seed)
    surrogate = find_surrogate("bundled", device="cpu", dtype="float32")
    md_backend = surrogate.md_backend("auto", [8] * 8)
    calculator = surrogate.calculator(0, md_backend)
    seeds = build_seeds(planned, calculator=surrogate.calculator())
    walkers = plan_walkers(planned, seeds, surrogate.sha256)
    frames = run_walkers(walkers, lambda: calculator, work / f"frames-{seed}")
    matrix = compute_descriptors(
        frames, planned.descriptors, planned.elements, work / f"descriptors-{seed}"
    )
    rows = np.concatenate([rows for _, rows in matrix.iter_batches()])
    return frames, rows


def select(method: str, n_samples: int, frames: Trajectory, rows: np.ndarray, seed: int) -> Any:
    """Identifiers of the selected frames."""
    ids = np.concatenate([b["frame_id"].to_numpy() for b in frames.iter_batches(["frame_id"])])
    selection = direct_select(rows, n_samples, method=method, seed=seed, frame_ids=ids)
    return ids[selection.indices].tolist()


def label(frames: Sequence[Atoms], work: Path, n_workers: int) -> tuple[list[Atoms], dict]:
    """Labelled frames and the isolated-atom energies, eV."""
    ledger = LabelLedger(work / "labels.db")
    made = label_frames(frames, ENGINE, ledger, n_workers=n_workers)
    return made.labelled, made.isolated_energies


def measure(
    labelled: list[Atoms],
    test: list[Atoms],
    isolated: dict[str, float],
    work: Path,
    seed: int,
    foundation: Path | None = None,
) -> dict[str, float]:
    """Errors on the test frames of a potential fitted to labels."""
    steps = STEPS["tuned" if foundation else "scratch"]
    settings = TrainingSettings(
        start_from="surrogate" if foundation else "scratch",
        max_epochs=max(20, round(steps * BATCH / (0.8 * len(labelled)))),
        batch_size=BATCH,
        committee=1,
        valid_fraction=0.1,
        test_fraction=0.1,
    )
    trained = fit_mace(
        labelled, isolated, settings, work_dir=work / "fits", seed=seed, foundation_model=foundation
    )
    errors = evaluate(trained.model_file, {"train": labelled, "test": test})["splits"]["test"]
    return {name: value for name, value in errors.items() if value is not None}


def main() -> None:
    """Explore, select, label, fit, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--samples", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=int, default=40, help="test frames of each of two pools")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--until", choices=("label", "fit"), default="fit")
    given = parser.parse_args()
    test_frames = []
    for seed in (1001, 1002):
        frames, rows = explore(seed, given.work)
        test_frames += frames.frames(select("random", given.test, frames, rows, seed))
    selections: dict[tuple[str, int, int], list[Atoms]] = {}
    for seed in range(given.seeds):
        frames, rows = explore(seed, given.work)
        for method in METHODS:
            for n_samples in given.samples:
                ids = select(method, n_samples, frames, rows, seed)
                selections[method, n_samples, seed] = frames.frames(ids)
    print({"pool": len(rows), "test": len(test_frames)}, flush=True)
    test, isolated = label(test_frames, given.work, given.workers)
    labelled_frames = {}
    for key, frames in selections.items():
        labelled_frames[key] = label(frames, given.work, given.workers)[0]
        print("labelled", key, len(labelled_frames[key]), flush=True)
    if given.until == "label":
        return
    file = given.work / "errors.json"
    errors = json.loads(file.read_text()) if file.exists() else {}
    tuned = find_surrogate("bundled", device="cpu", dtype="float32").save_model(
        given.work / "bundled.model"
    )
    starts = {"tuned": tuned, "scratch": None}
    for n_samples in given.samples:  # small numbers first, for all methods
        for (method, n, seed), labelled in labelled_frames.items():
            for start, foundation in starts.items():
                if n != n_samples or (start == "scratch" and method != "direct"):
                    continue
                name = f"{method} {n} {seed} {start}"
                if name not in errors:
                    errors[name] = measure(labelled, test, isolated, given.work, seed, foundation)
                    file.write_text(json.dumps(errors, indent=1))
                    print(name, errors[name]["force_rmse_meV_per_A"], flush=True)
    report(errors, given.samples, given.figure)


QUANTITIES = {
    "force_rmse_meV_per_A": "force RMSE, meV/Å",
    "force_p99_meV_per_A": "force P99, meV/Å",
    "energy_rmse_meV_per_atom": "energy RMSE, meV/atom",
}


def report(errors: dict[str, Any], samples: Sequence[int], figure: Path | None) -> None:
    """Print and plot mean ± standard deviation over the random seeds, and the number of labels needed."""
    of = {}
    for quantity in QUANTITIES:
        curves: dict[str, dict[int, list[float]]] = {}
        for name, values in errors.items():
            method, n, _, start = name.split()
            label_of = method if start == "tuned" else f"{method}, from scratch"
            curves.setdefault(label_of, {}).setdefault(int(n), []).append(values[quantity])
        of[quantity] = curves
    for quantity, title in QUANTITIES.items():
        print(f"\n| {title} | " + " | ".join(f"{n} labels" for n in samples) + " |")
        print("|---" * (len(samples) + 1) + "|")
        for label_of, by_size in of[quantity].items():
            cells = [
                f"{np.mean(by_size[n]):.3g} ± {np.std(by_size[n], ddof=1):.2g}"
                if len(by_size.get(n, [])) > 1
                else "–"
                for n in samples
            ]
            print(f"| {label_of} | " + " | ".join(cells) + " |")
        target = np.mean(of[quantity]["random"][max(samples)])
        for label_of, by_size in of[quantity].items():
            print(f"{label_of}: {labels_needed(by_size, target):.0f} labels for {target:.3g}")
    if figure:
        _draw(of, figure)


def labels_needed(by_size: dict[int, list[float]], target: float) -> float:
    """Number of labels at which the mean error equals a target, interpolated by a power law."""
    sizes = sorted(by_size)
    means = np.log([np.mean(by_size[n]) for n in sizes])
    for low, high in zip(range(len(sizes)), range(1, len(sizes)), strict=False):
        if means[high] <= np.log(target) <= means[low]:
            share = (means[low] - np.log(target)) / (means[low] - means[high])
            return float(sizes[low] * (sizes[high] / sizes[low]) ** share)
    return float(sizes[0]) if np.log(target) > means[0] else float("inf")


def _draw(of: dict[str, dict[str, dict[int, list[float]]]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axis, (quantity, title) in zip(figure.subplots(1, 3), QUANTITIES.items(), strict=True):
        for shift, (label_of, by_size) in enumerate(of[quantity].items()):
            sizes = sorted(by_size)
            axis.errorbar(
                np.array(sizes) * 1.02**shift,  # so that error bars do not overlap
                [np.mean(by_size[n]) for n in sizes],
                [np.std(by_size[n], ddof=1) if len(by_size[n]) > 1 else 0 for n in sizes],
                label=label_of,
                capsize=2,
                ls="--" if "scratch" in label_of else "-",
            )
        axis.set(xscale="log", xlabel="DFT labels", ylabel=f"held-out {title}", ylim=(0, None))
        axis.set_xticks(sizes, [str(n) for n in sizes])
        axis.minorticks_off()
    axis.legend(frameon=False, fontsize="small")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
