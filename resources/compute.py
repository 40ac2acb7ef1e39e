"""The compute resource: the number of cores that an asset may use on this machine."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from mlip_assets.common.processes import usable_cores
from mlip_assets.compute.local import Compute, LocalProcesses


class ComputeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Workers with one core each: processes for molecular dynamics and DFT, threads for descriptors."""

    n_workers: int = Field(default=0, ge=0, description="workers; 0: one per usable core")

    def workers(self, devices: str | Sequence[str] = "cpu") -> int:
        """Number of workers to start; one per GPU if the devices are GPUs."""
        gpus = [devices] if isinstance(devices, str) else list(devices)
        return len(gpus) if gpus[0].startswith("cuda") else self.n_workers or usable_cores()

    def processes(self) -> Compute:
        """Where DFT runs: processes of this machine."""
        return LocalProcesses(self.workers())
