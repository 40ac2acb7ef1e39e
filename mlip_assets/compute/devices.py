"""Devices of this machine: their names, the meaning of a setting, and the load of the GPUs."""

from __future__ import annotations

import csv
import subprocess
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

_COLUMNS = ("uuid", "name", "memory.total", "memory.used", "utilization.gpu")
_MIB_PER_GIB = 1024


class DeviceError(ValueError):
    """A device of a campaign does not exist on this machine."""


def find_devices(device: str, setting: str) -> tuple[str, ...]:
    """Decide what ``auto`` means here, and that the named devices exist.

    Parameters
    ----------
    device
        ``auto`` (every GPU torch sees, else the CPU), ``cpu``, ``cuda`` (every GPU) or ``cuda:n``.
    setting
        The key of the campaign, for the message.

    Returns
    -------
    tuple[str, ...]
        ``("cpu",)``, or one ``cuda:n`` per GPU.

    Raises
    ------
    DeviceError
        There is no such CUDA device; the message gives ``setting``.
    """
    if device == "cpu":
        return ("cpu",)
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        if device == "auto":
            return ("cpu",)
        raise DeviceError(
            f"{setting}: '{device}' requested, but torch finds no CUDA device; use auto or "
            "cpu, or install a CUDA build of torch"
        )
    _, _, index = device.partition(":")
    if not index:
        return tuple(f"cuda:{number}" for number in range(count))
    if int(index) >= count:
        raise DeviceError(
            f"{setting}: '{device}' requested, but torch finds {count} CUDA "
            f"device{'s' * (count > 1)}, counted from 0"
        )
    return (f"cuda:{int(index)}",)


def find_device(device: str, setting: str) -> str:
    """The first of :func:`find_devices`."""
    return find_devices(device, setting)[0]


def describe_devices(devices: tuple[str, ...]) -> dict[str, Any]:
    """Number, names and memory of GPUs, for the metadata; empty for the CPU."""
    gpus = [device for device in devices if device.startswith("cuda")]
    if not gpus:
        return {}
    import torch

    properties = [torch.cuda.get_device_properties(gpu) for gpu in gpus]
    return {
        "n_gpus": len(gpus),
        "gpu_name": ", ".join(dict.fromkeys(p.name for p in properties)),
        "gpu_memory_GiB": round(min(p.total_memory for p in properties) / 2**30, 1),
    }


@dataclass(frozen=True)
class GpuReading:
    """State of one GPU at one time."""

    uuid: str
    name: str
    memory_GiB: float
    memory_used_GiB: float
    """By all processes."""
    utilisation_percent: float
    """Percentage of the last sample period in which a kernel ran."""


def read_gpus() -> list[GpuReading]:
    """State of every GPU, from ``nvidia-smi``; empty if there is no such program."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_COLUMNS)}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return []
    readings = []
    for row in csv.reader(listed.stdout.splitlines(), skipinitialspace=True):
        uuid, name, *numbers = row
        total, used, busy = (float(n) if _is_number(n) else float("nan") for n in numbers)
        readings.append(GpuReading(uuid, name, total / _MIB_PER_GIB, used / _MIB_PER_GIB, busy))
    return readings


class GpuWatch:
    """Reads the state of GPUs in regular intervals while a block runs.

    ``with GpuWatch(surrogate.devices) as watch: …`` and then ``watch.summary()``. Costs nothing
    and reports nothing on the CPU.
    """

    def __init__(self, devices: tuple[str, ...], interval_s: float = 2.0) -> None:
        self._uuids = {_uuid(device) for device in devices if device.startswith("cuda")}
        self._interval_s = interval_s
        self._readings: list[GpuReading] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpu-watch", daemon=True)

    def __enter__(self) -> Self:
        if self._uuids:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._uuids:
            self._thread.join()

    def summary(self) -> dict[str, float]:
        """Mean utilisation and maximum of used memory over GPUs and time; empty without readings."""
        busy = [r.utilisation_percent for r in self._readings if r.utilisation_percent >= 0]
        summary: dict[str, float] = {}
        if busy:
            summary["gpu_utilisation_percent"] = round(sum(busy) / len(busy), 1)
        if self._readings:
            used = max(reading.memory_used_GiB for reading in self._readings)
            summary["gpu_memory_used_GiB"] = round(used, 2)
        return summary

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._readings += [reading for reading in read_gpus() if reading.uuid in self._uuids]


def _uuid(device: str) -> str:
    import torch

    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
