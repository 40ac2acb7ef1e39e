"""Conditions: ensemble, temperature and pressure of a walker as functions of its absolute step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlip_assets.campaign import Ensemble, ExplorationSettings


@dataclass(frozen=True)
class Conditions:
    """Ensemble, temperature and pressure of a walker.

    The temperature depends only on the number of steps since the initial structure. Neither a
    restart nor a longer run therefore repeats or stretches a ramp.
    """

    ensemble: Ensemble
    temperature_points: tuple[tuple[int, float], ...]
    """``(step, K)``, linear between the points, constant before the first and after the last."""
    pressure_GPa: float | None = None

    @classmethod
    def constant(
        cls, temperature_K: float, ensemble: Ensemble = "nvt", pressure_GPa: float | None = None
    ) -> Conditions:
        """Conditions of constant temperature."""
        return cls(ensemble, ((0, temperature_K),), pressure_GPa)

    def temperature_K(self, step: int) -> float:
        """Target temperature at a step."""
        if len(self.temperature_points) == 1:
            return self.temperature_points[0][1]
        steps, temperatures = zip(*self.temperature_points, strict=True)
        return float(np.interp(step, steps, temperatures))

    @property
    def final_temperature_K(self) -> float:
        """Target temperature after the last point."""
        return self.temperature_points[-1][1]

    @property
    def is_npt(self) -> bool:
        """Whether the cell changes."""
        return self.ensemble.startswith("npt")

    @property
    def label(self) -> str:
        """Readable, valid in a file name, and unique among the conditions of a campaign."""
        temperatures = "-".join(f"{temperature:g}" for _, temperature in self.temperature_points)
        label = f"{temperatures}K"
        if len(self.temperature_points) > 1:
            label += "-in-" + "-".join(str(step) for step, _ in self.temperature_points)
        return label if self.pressure_GPa is None else f"{label}_{self.pressure_GPa:g}GPa"

    def at_constant_volume(self) -> Conditions:
        """For a structure that is not periodic in all directions and therefore has no pressure."""
        if not self.is_npt:
            return self
        return Conditions("nvt", self.temperature_points)

    def identity(self) -> dict[str, Any]:
        """Plain values, for a fingerprint."""
        return vars(self)


def conditions_of(exploration: ExplorationSettings) -> Iterator[Conditions]:
    """Every pressure × temperature of a campaign, ramps after constant temperatures."""
    profiles = [((0, temperature),) for temperature in exploration.temperatures_K]
    pressures = exploration.pressures_GPa or (None,)
    for pressure, points in itertools.product(
        pressures, [*profiles, *exploration.temperature_ramps_K]
    ):
        yield Conditions(exploration.ensemble, points, pressure)
