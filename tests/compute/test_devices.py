"""Devices: ``auto`` with zero, one and four GPUs; assignment of workers; GPU readings."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mlip_assets.compute.devices import (
    DeviceError,
    GpuWatch,
    describe_devices,
    find_devices,
    read_gpus,
)
from mlip_assets.surrogates import find_surrogate
from mlip_assets.surrogates.models import mace
from resources.compute import ComputeResource

LISTED = """\
GPU-aaaa, NVIDIA H200, 143771, 1024, {busy}
GPU-bbbb, NVIDIA H200, 143771, 40960, [N/A]
"""


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``gpus(n)`` makes torch report n GPUs."""

    def see(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(
            torch.cuda,
            "get_device_properties",
            lambda device: SimpleNamespace(
                name="NVIDIA H200",
                total_memory=(140 + int(device[-1])) * 2**30,
                uuid="abcd"[int(device[-1])] * 4,
            ),
        )

    return see


@pytest.mark.parametrize(
    ("setting", "count", "found"),
    [
        ("auto", 0, ("cpu",)),
        ("cpu", 4, ("cpu",)),
        ("auto", 1, ("cuda:0",)),
        ("cuda", 2, ("cuda:0", "cuda:1")),
        ("cuda:3", 4, ("cuda:3",)),
    ],
)
def test_find_devices_resolves_setting(gpus: Any, setting: str, count: int, found: Any) -> None:
    gpus(count)
    assert find_devices(setting, "exploration.device") == found


@pytest.mark.parametrize(
    ("setting", "count", "message"),
    [("cuda", 0, "finds no CUDA device"), ("cuda:2", 2, "finds 2 CUDA devices, counted from 0")],
)
def test_find_devices_refuses_missing_device(
    gpus: Any, setting: str, count: int, message: str
) -> None:
    gpus(count)
    with pytest.raises(DeviceError, match=f"exploration.device: '{setting}'.*{message}"):
        find_devices(setting, "exploration.device")


def test_workers_are_assigned_to_gpus_in_turn(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(3)
    surrogate = find_surrogate("bundled", device="auto", dtype="float32")
    assert ComputeResource().workers(surrogate.devices) == 3
    assert ComputeResource(n_workers=7).workers(("cpu",)) == 7
    built = []
    monkeypatch.setattr(type(surrogate), "build", lambda self, device: built.append(device))
    for worker in range(5):
        surrogate.calculator(worker)
    assert built == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]


def test_describe_devices_names_gpus_only(gpus: Any) -> None:
    gpus(2)
    described = describe_devices(("cuda:0", "cuda:1"))
    assert described == {"n_gpus": 2, "gpu_name": "NVIDIA H200", "gpu_memory_GiB": 140.0}
    assert describe_devices(("cpu",)) == {}


def test_kernels_are_cuequivariance_on_gpu_if_installed(monkeypatch: Any) -> None:
    there: set[str] = set()
    monkeypatch.setattr(mace, "find_spec", lambda name: name if name in there else None)
    assert mace.kernels("cuda:0") == "e3nn"
    there.add("cuequivariance_torch")
    assert mace.kernels("cuda:0") == "e3nn"  # its kernels are a separate package
    there.add("cuequivariance_ops_torch")
    assert mace.kernels("cuda:0") == "cuequivariance"
    assert mace.kernels("cpu") == "e3nn"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``nvidia_smi(text)`` adds a program of that name, which prints the text, to the path."""

    def install(text: str, exit_code: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {exit_code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


def test_read_gpus_parses_nvidia_smi(nvidia_smi: Any) -> None:
    nvidia_smi(LISTED.format(busy=93))
    first, second = read_gpus()
    assert (first.uuid, first.name, first.utilisation_percent) == ("GPU-aaaa", "NVIDIA H200", 93)
    assert first.memory_GiB == pytest.approx(140.4, abs=0.01)
    assert second.memory_used_GiB == 40.0
    assert second.utilisation_percent != second.utilisation_percent  # not available: NaN


def test_read_gpus_is_empty_without_nvidia_smi(nvidia_smi: Any, monkeypatch: Any) -> None:
    nvidia_smi("", exit_code=9)
    assert read_gpus() == []
    monkeypatch.setenv("PATH", "")
    assert read_gpus() == []


def test_gpu_watch_summarises_given_gpus(nvidia_smi: Any, gpus: Any) -> None:
    gpus(1)
    nvidia_smi(LISTED.format(busy=80))
    with GpuWatch(("cuda:0",), interval_s=0.02) as watch:
        deadline = time.monotonic() + 20
        while not watch.summary() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert watch.summary() == {"gpu_utilisation_percent": 80.0, "gpu_memory_used_GiB": 1.0}
    with GpuWatch(("cpu",)) as idle:
        pass
    assert idle.summary() == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
@pytest.mark.parametrize("name", ["bundled", "chgnet"])
def test_gpu_forces_agree_with_cpu_forces(name: str) -> None:
    import numpy as np

    from tests.surrogates import surrogate_checks as checks

    if name == "chgnet":
        pytest.importorskip("chgnet", reason="the extra 'chgnet' is not installed")
    forces = []
    for device in ("cpu", "cuda:0"):
        surrogate = find_surrogate(name, device=device, dtype="float32")
        with GpuWatch(surrogate.devices, interval_s=0.1) as watch:
            atoms = checks.moved(checks.CRYSTALS["MgO"], surrogate.calculator())
            for _ in range(30):
                atoms.calc.reset()
                forces_now = atoms.get_forces()
        forces.append(forces_now)
    np.testing.assert_allclose(forces[0], forces[1], atol=2e-4)
    assert watch.summary()["gpu_memory_used_GiB"] > 0
