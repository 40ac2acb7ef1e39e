# ruff: noqa: T201
"""Atoms × steps a second of many replicas of one cell, by both engines, in one process.

``python tests/benchmarks/walker_throughput.py --device cuda --replicas 1 8 64 256`` prints a table.
The engines take turns, and the best of the rounds counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase.build import bulk

from mlip_assets.campaign import Campaign
from mlip_assets.compute.devices import describe_devices
from mlip_assets.dynamics import plan_walkers, run_walkers
from mlip_assets.surrogates import find_surrogate

ENGINES = ("ase", "torchsim")
#: Cubic cells of silicon by their number of atoms.
CELLS = {8: (1, 1, 1), 16: (2, 1, 1), 32: (2, 2, 1), 64: (2, 2, 2), 216: (3, 3, 3)}


def rates(
    surrogate: Any, n_atoms: int, n_replicas: int, n_steps: int, n_rounds: int, clock: Any
) -> dict[str, float]:
    """Atoms × steps a second of each engine, reading, guarding and writing included."""
    seed = bulk("Si", cubic=True) * CELLS[n_atoms]
    seed.info.update(seed_name="crystal", seed_kind="crystal")
    campaign = Campaign(
        name="silicon",
        composition="Si",
        exploration={"n_steps": n_steps, "replicas": n_replicas, "temperatures_K": [600]},
        sampling={"n_samples": 1},
    )
    walkers = plan_walkers(campaign, [seed], surrogate.sha256)
    calculators = {engine: surrogate.calculator(0, engine) for engine in ENGINES}
    best = dict.fromkeys(ENGINES, 0.0)
    for _ in range(n_rounds + 1):  # the first compiles
        for engine, calculator in calculators.items():
            with tempfile.TemporaryDirectory() as folder:
                started = clock()
                run_walkers(walkers, lambda calculator=calculator: calculator, Path(folder))
                rate = n_atoms * n_replicas * n_steps / (clock() - started)
            best[engine] = max(best[engine], rate)
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--surrogate", default="bundled")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--atoms", type=int, default=64, choices=sorted(CELLS))
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args(arguments)
    surrogate = find_surrogate(given.surrogate, device=given.device, dtype=given.dtype)
    clock = time.process_time if surrogate.device == "cpu" else time.perf_counter
    place = describe_devices(surrogate.devices).get("gpu_name", "one processor core")
    print(f"{surrogate.name}, {given.dtype}, {given.atoms} atoms, on {place}\n")
    print("| replicas | ase, atoms·steps/s | torchsim, atoms·steps/s | ratio |\n|---|---|---|---|")
    for n_replicas in given.replicas:
        rate = rates(surrogate, given.atoms, n_replicas, given.steps, given.rounds, clock)
        ratio = rate["torchsim"] / rate["ase"]
        print(f"| {n_replicas} | {rate['ase']:.0f} | {rate['torchsim']:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
