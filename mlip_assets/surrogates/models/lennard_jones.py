"""Argon by the Lennard-Jones potential: two parameters, and no weights to fetch."""

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
    """Pairs alone, without the three-body dispersion that shifts real argon by a few percent."""

    def elements(self) -> tuple[str, ...]:
        """The one element it has parameters for."""
        return ("Ar",)

    def build(self, device: str) -> Calculator:  # noqa: ARG002  it is so cheap that none matters
        """ASE's own, on the CPU and in float64 whatever is asked for."""
        from ase.calculators.lj import LennardJones

        calculator: Calculator = LennardJones(**PARAMETERS)
        return calculator


def find(name: str, *, devices: tuple[str, ...], dtype: str) -> LennardJonesSurrogate:
    """Always there."""
    return LennardJonesSurrogate(name, fingerprint(PARAMETERS), devices, dtype)
