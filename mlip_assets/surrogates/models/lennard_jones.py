"""Argon as Lennard-Jones particles: two parameters, no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlip_assets.campaign import fingerprint
from mlip_assets.surrogates.surrogate import Surrogate

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

#: epsilon = 120 K k_B in eV, sigma in Å: A. Rahman, Phys. Rev. 136, A405 (1964); smoothly cut.
PARAMETERS: dict[str, float | bool] = {
    "epsilon": 0.0104,
    "sigma": 3.40,
    "rc": 8.5,
    "smooth": True,
}


@dataclass(frozen=True)
class LennardJonesSurrogate(Surrogate):
    """Pair interactions; three-body dispersion, a few percent in argon, is not included."""

    distribution = "ase"

    def elements(self) -> tuple[str, ...]:
        """The only element with parameters."""
        return ("Ar",)

    def build(self, device: str) -> Calculator:  # noqa: ARG002  always on the CPU
        """ASE's calculator, always on the CPU and in float64."""
        from ase.calculators.lj import LennardJones

        calculator: Calculator = LennardJones(**PARAMETERS)
        return calculator

    def licence(self) -> str:
        """Of two published numbers."""
        return "none (published parameters)"


def find(name: str, *, devices: tuple[str, ...], dtype: str) -> LennardJonesSurrogate:
    """Lennard-Jones argon; never an error."""
    return LennardJonesSurrogate(name, fingerprint(PARAMETERS), devices, dtype)
