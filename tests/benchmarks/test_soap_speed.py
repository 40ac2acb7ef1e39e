"""SOAP by the compiled kernel against the reference, plain loops and other programs.

All run on the same frames in one process, in turn, pinned to one core, and the least CPU time of
several rounds counts: their ratios then hardly depend on what else the machine does.
``MLIP_BENCHMARKS=full`` (``make bench``) adds workloads, settings and contenders, and prints one
table of all ratios.
"""

# ruff: noqa: T201 - the table is printed

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from ase import Atoms

from mlip_assets.descriptors import reference, soap_power_spectrum
from mlip_assets.descriptors.kernels.llvm_vectors import vectors_are_supported
from mlip_assets.descriptors.kernels.power_spectra import CHUNK_FRAMES
from tests.descriptors.structures import copper, oxide, silicon

FULL = os.environ.get("MLIP_BENCHMARKS") == "full"
N_ROUNDS = 9 if FULL else 5
R_CUT, SIGMA = 5.0, 0.5
WORKLOADS = {"Si64": silicon, "Cu108": copper, "HEO216": oxide}
CASES = (
    list(product(WORKLOADS, [(8, 6), (10, 9)])) if FULL else [("Si64", (8, 6)), ("HEO216", (8, 6))]
)
KERNEL, NEW_LISTS, SINGLE = "kernel", "kernel, new lists", "kernel, float32"

#: How many times faster one must at least be than another, on a bad day of a busy machine.
GUARD = {
    (KERNEL, "reference"): 100,
    (KERNEL, "dscribe"): 8,
    (NEW_LISTS, "dscribe"): 6,
    (SINGLE, "dscribe"): 10,
}


class Contender(NamedTuple):
    run: Callable[[], Any]
    n_frames: int
    n_rounds: int = N_ROUNDS


@pytest.fixture
def one_core() -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def table() -> Iterator[dict[tuple[str, int, int], dict[str, float]]]:
    """Microseconds of CPU an environment, by workload and contender; printed at the end."""
    rows: dict[tuple[str, int, int], dict[str, float]] = {}
    yield rows
    if FULL and rows:
        names = list(dict.fromkeys(name for times in rows.values() for name in times))
        print("\n\nCPU time of dscribe over that of each (its own in µs an environment)\n")
        print("|", " | ".join(["workload", "n, l", *names]), "|")
        print("|---" * (len(names) + 2), "|", sep="")
        for (workload, n_max, l_max), times in rows.items():
            ratios = [f"{times['dscribe'] / times[name]:.3g}×" for name in names]
            ratios[names.index("dscribe")] = f"{times['dscribe']:.1f} µs"
            print("|", " | ".join([workload, f"{n_max}, {l_max}", *ratios]), "|")


def trajectory(start: Atoms, n_frames: int, *, cell_changes: bool = False) -> tuple[Any, Any]:
    """Positions and cells: atoms that tremble by 0.1 Å with some memory, as in a hot crystal."""
    rng = np.random.default_rng(0)
    moved = rng.normal(0, 0.1, (len(start), 3))
    positions = np.empty((n_frames, len(start), 3))
    for frame in range(n_frames):
        moved = 0.95 * moved + rng.normal(0, 0.1 * np.sqrt(1 - 0.95**2), moved.shape)
        positions[frame] = start.positions + moved
    scales = 1 + cell_changes * rng.normal(0, 0.002, (n_frames, 1, 1))
    return positions * scales, start.cell[:] * scales


def contenders(start: Atoms, n_max: int, l_max: int) -> dict[str, Contender]:
    many, few = max(16, 8192 // len(start)), max(2, 512 // len(start))
    frames, changing = trajectory(start, many), trajectory(start, many, cell_changes=True)
    settings = {
        "species": sorted(set(start.symbols)),
        "r_cut": R_CUT,
        "n_max": n_max,
        "l_max": l_max,
        "sigma": SIGMA,
    }

    def ours(
        n_frames: int,
        moving: tuple[Any, Any] = frames,
        function: Any = soap_power_spectrum,
        **more: Any,
    ) -> Callable[[], Any]:
        positions, cells = (array[:n_frames] for array in moving)
        return lambda: function(positions, cells, True, start.numbers, **settings, **more)

    from dscribe.descriptors import SOAP

    soap = SOAP(**settings, average="outer", periodic=True)
    objects = [
        Atoms(start.numbers, x, cell=cell, pbc=True) for x, cell in zip(*frames, strict=True)
    ][:few]
    for atoms in objects:
        atoms.wrap()
    found = {
        "reference": Contender(ours(1, function=reference.soap_power_spectrum), 1, n_rounds=2),
        "dscribe": Contender(lambda: soap.create(objects), few),
        "loops": Contender(ours(few, implementation="scalar"), few),
        KERNEL: Contender(ours(many), many),
        NEW_LISTS: Contender(ours(many, changing), many),
        SINGLE: Contender(ours(many, dtype=np.float32), many),
    }
    if FULL:
        found["kernel, float32, new lists"] = Contender(
            ours(many, changing, dtype=np.float32), many
        )
        found["kernel, fine table"] = Contender(ours(many, radial_table="fine"), many)
        found |= other_programs(objects, n_max, l_max)
    return found


def other_programs(objects: list[Atoms], n_max: int, l_max: int) -> dict[str, Contender]:
    """featomic and quests where they are installed, at our cut-off and where our neighbours end."""
    found = {}
    for radius in (R_CUT, reference.neighbour_radius(R_CUT, SIGMA)):
        if find_spec("featomic"):
            os.environ.setdefault("RAYON_NUM_THREADS", "1")
            import featomic

            powers = featomic.SoapPowerSpectrum(
                cutoff={"radius": radius, "smoothing": {"type": "Step"}},
                density={"type": "Gaussian", "width": SIGMA},
                basis={
                    "type": "TensorProduct",
                    "max_angular": l_max,
                    "radial": {"type": "Gto", "max_radial": n_max - 1},
                },
            )
            found[f"featomic {radius:.2f} Å"] = Contender(
                lambda powers=powers: powers.compute(objects), len(objects)
            )
        if find_spec("quests"):
            import numba
            from quests.descriptor import get_descriptors

            numba.set_num_threads(1)
            found[f"quests {radius:.2f} Å"] = Contender(
                lambda radius=radius: get_descriptors(objects, k=32, cutoff=radius), len(objects)
            )
    return found


def least_times(entrants: dict[str, Contender], clock: Callable[[], float]) -> dict[str, float]:
    """Seconds a frame, of interleaved rounds; the first calls, which compile, do not count."""
    best = dict.fromkeys(entrants, np.inf)
    for turn in range(-1, max(entrant.n_rounds for entrant in entrants.values())):
        for name, entrant in entrants.items():
            if turn < entrant.n_rounds:
                started = clock()
                entrant.run()
                spent = (clock() - started) / entrant.n_frames
                if turn >= 0:
                    best[name] = min(best[name], spent)
    return best


@pytest.mark.slow
@pytest.mark.skipif(not vectors_are_supported(), reason="no processor that the kernel is made for")
@pytest.mark.parametrize(("workload", "size"), CASES, ids=str)
@pytest.mark.usefixtures("one_core")
def test_kernel_keeps_its_speed(
    workload: str, size: tuple[int, int], benchmark: Any, table: dict[Any, dict[str, float]]
) -> None:
    start = WORKLOADS[workload]()
    entrants = contenders(start, *size)
    frame, theirs = entrants[KERNEL].run()[0], entrants["dscribe"].run()[0]
    for other in (theirs, entrants["reference"].run()[0], entrants["loops"].run()[0]):
        assert np.abs(frame - other).max() < 1e-8 * np.abs(other).max()

    times = least_times(entrants, time.process_time)
    table[workload, *size] = {name: 1e6 * spent / len(start) for name, spent in times.items()}
    benchmark.extra_info["us_an_environment"] = table[workload, *size]
    benchmark.pedantic(entrants[KERNEL].run, rounds=3)
    slow = {
        f"{name} / {other}": f"{times[other] / times[name]:.1f}, not {least}"
        for (name, other), least in GUARD.items()
        if times[other] < least * times[name]
    }
    assert not slow


@pytest.mark.skipif(not FULL, reason="needs two idle cores")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_two_threads(workload: str, dtype: str, benchmark: Any) -> None:
    start = WORKLOADS[workload]()
    n_frames = 2 * CHUNK_FRAMES * max(1, 128 // len(start))
    positions, cells = trajectory(start, n_frames)

    def run(n_threads: int) -> Any:
        return soap_power_spectrum(
            positions,
            cells,
            True,
            start.numbers,
            species=sorted(set(start.symbols)),
            r_cut=R_CUT,
            n_max=8,
            l_max=6,
            sigma=SIGMA,
            dtype=dtype,
            n_threads=n_threads,
        )

    both = {str(n): Contender(lambda n=n: run(n), n_frames, n_rounds=40) for n in (1, 2)}
    times = least_times(both, time.perf_counter)
    gain = times["1"] / times["2"]
    benchmark.extra_info.update(gain=gain, frames_a_second=1 / times["2"])
    benchmark.pedantic(both["2"].run, rounds=1)
    print(f"\n{workload}, {dtype}: two threads {gain:.2f}× one, {1 / times['2']:.0f} frames/s")
    assert gain > 1.2
