"""The cache of compiled kernels: shared by processes and threads, and as new as the source."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlip_assets
from mlip_assets.descriptors import reference, soap_power_spectrum
from mlip_assets.descriptors.kernels.power_spectra import CHUNK_FRAMES

PACKAGE = Path(mlip_assets.__file__).parent
CRYSTAL = {
    "positions": [[0.0, 0.0, 0.0], [1.3, 1.4, 1.2]],
    "cells": [[2.9, 0.3, 0.0], [0.0, 3.1, 0.2], [0.1, 0.0, 2.7]],
    "pbc": True,
    "numbers": [14, 14],
}
SETTINGS: dict[str, Any] = {"species": ["Si"], "r_cut": 3.0, "l_max": 2, "sigma": 0.5}

#: First lines of every child process; ``answer`` makes one call and returns its measurements.
BEGINNING = f"""
import json, multiprocessing, os, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
import numpy as np
from mlip_assets.descriptors import soap_power_spectrum
call = partial(soap_power_spectrum, **{CRYSTAL}, **{SETTINGS})
started = time.process_time()
from numba.core import event

def answer(**changes):
    with event.install_recorder("numba:compile") as compiled:
        features = call(**changes)[0].tolist()
    return {{
        "features": features,
        "n_compiled": len(compiled.buffer),
        "cpu_s": time.process_time() - started,
    }}
"""

ONE_CALL = "print(json.dumps(answer(n_max=int(sys.argv[1]))))"


def expected(n_max: int) -> Any:
    return reference.soap_power_spectrum(**CRYSTAL, **SETTINGS, n_max=n_max)[0]


def assert_correct(features: Any, n_max: int = 2) -> None:
    assert np.abs(np.array(features) - expected(n_max)).max() < 1e-8 * expected(n_max).max()


@dataclass(frozen=True)
class Cache:
    """A copy of the package, and a cache of its kernels."""

    project: Path
    folder: Path


def start(cache: Cache, code: str, *arguments: object) -> Any:
    return subprocess.Popen(
        # without -B Python itself keeps bytecode by the time and size of a file
        [sys.executable, "-B", "-c", BEGINNING + code, *map(str, arguments)],
        cwd=cache.project,
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache.folder), "PYTHONPATH": str(cache.project)},
        stdout=subprocess.PIPE,
        text=True,
    )


def result(child: Any) -> Any:
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 0
    return json.loads(output)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Filled by four concurrent processes; two of them compile each kernel."""
    folder = tmp_path_factory.mktemp("compiled")
    cache = Cache(folder / "project", folder / "cache")
    shutil.copytree(
        PACKAGE, cache.project / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")
    )
    sizes = (2, 3, 2, 3)
    children = [start(cache, ONE_CALL, n_max) for n_max in sizes]
    for n_max, child in zip(sizes, children, strict=True):
        measured = result(child)
        assert_correct(measured["features"], n_max)
        assert measured["n_compiled"] > 0
    return cache


@pytest.mark.slow
def test_cache_filled_by_concurrent_processes_is_loaded(cache: Cache) -> None:
    for n_max in (2, 3):
        measured = result(start(cache, ONE_CALL, n_max))
        assert_correct(measured["features"], n_max)
        assert measured["n_compiled"] == 0
        assert measured["cpu_s"] < 3  # 0.5 s on an idle machine
    # two kernels with one name could be confused by processes that write concurrently
    assert len(list(cache.folder.rglob("*.nbi"))) == 2


@pytest.mark.slow
def test_kernel_is_shared_by_arrays_of_any_memory_order(cache: Cache) -> None:
    layouts = """
frames = np.repeat([call.keywords["positions"]], 6, axis=0)
fixed = frames.copy()
fixed.flags.writeable = False
calls = [{"positions": x} for x in (frames, frames[::2], np.asfortranarray(frames), fixed)]
calls += [
    {"positions": frames, "pbc": np.ones((6, 3), bool)},
    {"positions": frames, "cells": np.repeat([call.keywords["cells"]], 6, axis=0)},
    {"positions": frames, "n_threads": 2},
]
print(json.dumps([answer(n_max=2, **changes) for changes in calls]))
"""
    for measured in result(start(cache, layouts)):
        assert_correct(measured["features"])
        assert measured["n_compiled"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(
            """
answers = []
together = [threading.Thread(target=lambda: answers.append(answer(n_max=2))) for _ in range(2)]
for thread in together: thread.start()
for thread in together: thread.join()
print(json.dumps(answers))
""",
            id="two threads",
        ),
        pytest.param(
            """
before = answer(n_max=2)
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, json.dumps(answer(n_max=2)).encode())
    os._exit(0)
os.close(writing)
with open(reading) as child: measured = json.load(child)
print(json.dumps([before, measured, answer(n_max=2)]))
""",
            id="fork",
            marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
        ),
        pytest.param(
            """
before = answer(n_max=2)
rest = {name: value for name, value in call.keywords.items() if name != "positions"}
spawned = multiprocessing.get_context("spawn")
with ProcessPoolExecutor(2, mp_context=spawned) as pool:  # a Pool waits for a child that died
    theirs = list(pool.map(partial(soap_power_spectrum, **rest, n_max=2), [frames, frames]))
measured = [{"features": features[0].tolist()} for features in theirs]
print(json.dumps([before, *measured]))
""",
            id="spawn",
        ),
    ],
)
def test_soap_after_torch_with_threads_and_processes(cache: Cache, code: str) -> None:
    torch = """
import torch
torch.set_num_threads(2)
frames = np.repeat([call.keywords["positions"]], 300, axis=0)
call = partial(call, positions=frames, n_threads=2)
torch.ones(300, 300) @ torch.ones(300, 300)
"""
    for measured in result(start(cache, torch + code)):
        assert_correct(measured["features"])


@pytest.mark.slow
def test_cache_is_invalidated_by_changes_of_any_module(cache: Cache, tmp_path: Path) -> None:
    changing = Cache(cache.project, tmp_path / "cache")
    shutil.copytree(cache.folder, changing.folder)
    unchanged = result(start(changing, ONE_CALL, 2))
    assert_correct(unchanged["features"])
    assert unchanged["n_compiled"] == 0
    for helper, before, after in (
        ("llvm_vectors.py", "self.builder.fsub(", "self.builder.fadd("),
        ("neighbours.py", "image] - centre[1]", "image] - centre[0]"),
    ):
        path = changing.project / PACKAGE.name / "descriptors" / "kernels" / helper
        restore = swapped(path, before, after)
        measured = result(start(changing, ONE_CALL, 2))
        assert measured["n_compiled"] > 0
        assert np.abs(np.array(measured["features"]) - expected(2)).max() > 1e-3 * expected(2).max()
        restore()


def swapped(path: Path, before: str, after: str) -> Callable[[], object]:
    """Change a file but not its size and its times; returns a function that undoes the change."""
    known, source = path.stat(), path.read_text(encoding="utf-8")
    assert source.count(before) == 1

    def write(text: str) -> None:
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
        assert path.stat().st_size == known.st_size

    write(source.replace(before, after))
    return lambda: write(source)


def test_soap_bytes_do_not_depend_on_threads_of_small_frames() -> None:
    rng = np.random.default_rng(0)
    n_frames = 2 * CHUNK_FRAMES + 50
    positions = np.array(CRYSTAL["positions"]) + rng.normal(0, 0.1, (n_frames, 2, 3))
    settings = SETTINGS | {"n_max": 4, "l_max": 3}
    one, two, three = (
        soap_power_spectrum(
            **CRYSTAL | {"positions": positions}, **settings, n_threads=n_threads
        ).tobytes()
        for n_threads in (1, 2, 3)
    )
    assert one == two == three
