"""The integrator: one Langevin scheme for every ensemble, its complete state in plain arrays.

BAOAB splitting (Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013)) with a Langevin-Hoover
barostat (Quigley & Probert, J. Chem. Phys. 120, 11432 (2004)), both as implemented in ASE. Unlike
a Nosé-Hoover chain it is ergodic for the few, nearly harmonic degrees of freedom of a small
crystal, and it counts them correctly when the centre of mass is fixed. Its state has no history:
positions, momenta, cell, barostat and the state of the random numbers. A step has two halves with
the force evaluation between them, so that the forces of many walkers are computed in one batch.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevinbaoab import LangevinBAOAB
from numpy.typing import NDArray

from mlip_assets.campaign import ExplorationSettings
from mlip_assets.dynamics.conditions import Conditions

#: Version of the integrator; changes when the same settings no longer give the same frames.
INTEGRATOR = "baoab-1"

#: Bulk modulus (GPa) that converts the barostat period into a mass. The ensemble does not depend on
#: it: the period of the volume of a softer crystal is longer, by the square root of the ratio.
BULK_MODULUS_GPA = 100.0


class Integrator(LangevinBAOAB):
    """BAOAB of ASE, with the coupling of atoms and cell corrected for a fully flexible cell."""

    def _barostat_BAOAB_OU_gamma_mod(self) -> Any:
        # Quigley & Probert, eq. 5b: tr(p)/N_f times the identity. ASE 3.29 adds the trace to the
        # off-diagonal elements too, so that an isotropic volume change shears the velocities.
        if self.hydrostatic:
            return super()._barostat_BAOAB_OU_gamma_mod()  # type: ignore[no-untyped-call]
        trace = np.trace(self.p_eps) / self.Ndof * np.identity(3)
        return (self.p_eps + trace) / self.barostat_mass

    p_eps: Any
    force_eps: Any
    # Substeps of ASE for atoms and cell: B kick, A drift, OU friction and noise.
    _BAOAB_A: Any
    _BAOAB_B: Any
    _BAOAB_OU: Any
    _barostat_BAOAB_A: Any
    _barostat_BAOAB_B: Any
    _barostat_BAOAB_OU: Any
    _update_accel: Any
    _update_force_eps: Any

    def set_target_temperature(self, temperature_K: float) -> None:
        """Change the target of the thermostat; without one (NVE) nothing changes."""
        if self.temperature_K not in (None, temperature_K):
            self.set_temperature(temperature_K)  # type: ignore[no-untyped-call]

    def drift(self) -> None:
        """The part of a step before the force evaluation: B, A, OU, A."""
        is_npt = self.externalstress is not None
        if is_npt:
            self._barostat_BAOAB_B()
        self._BAOAB_B()
        if is_npt:
            self._barostat_BAOAB_A()
        self._BAOAB_A()
        if is_npt:
            self.gamma_mod = self._barostat_BAOAB_OU_gamma_mod()
        self._BAOAB_OU(self.gamma_mod)
        if is_npt:
            self._barostat_BAOAB_OU()
        self._BAOAB_A()
        if is_npt:
            self._barostat_BAOAB_A()

    def kick(self) -> None:
        """The part of a step after the force evaluation, whose result is ``atoms.calc``: B."""
        self._update_accel()
        if self.externalstress is not None:
            self._update_force_eps()
        self._BAOAB_B()
        if self.externalstress is not None:
            self._barostat_BAOAB_B()

    def step(self) -> None:
        """Make one step."""
        self.drift()
        self.kick()

    @property
    def barostat(self) -> NDArray[np.float64] | None:
        """Momentum of the cell and the force on it: ``(2,)``, ``(2, 3, 3)``, or None without barostat.

        The force contains the kinetic energy before the last half kick, so it cannot be computed
        again from positions and momenta.
        """
        if self.externalstress is None:
            return None
        return np.array([self.p_eps, self.force_eps])

    @property
    def is_finite(self) -> bool:
        """Whether the accelerations of atoms and cell are finite."""
        cell_is_finite = self.externalstress is None or np.isfinite(self.force_eps).all()
        return bool(np.isfinite(self.accel).all() and cell_is_finite)


def make_integrator(
    atoms: Atoms,
    conditions: Conditions,
    settings: ExplorationSettings,
    *,
    timestep_fs: float,
    temperature_K: float,
    volume_A3: float,
    rng: np.random.Generator,
    barostat: NDArray[np.float64] | None = None,
) -> Integrator:
    """Build the integrator of an ensemble.

    Parameters
    ----------
    atoms
        With calculator and momenta; changed in place.
    volume_A3
        Volume of the initial structure, which gives the constant mass of the cell.
    barostat
        State of the barostat, from :attr:`Integrator.barostat`; None: at rest.
    """
    cell: dict[str, Any] = {"hydrostatic": True}  # without a barostat: scalar friction
    if conditions.is_npt:
        assert conditions.pressure_GPa is not None
        period = settings.barostat_period_fs * units.fs
        # W ε'' = -9 V B ε for the strain ε of an isotropic cell; a full cell has three of them
        mass = 9 * volume_A3 * BULK_MODULUS_GPA * units.GPa * (period / (2 * np.pi)) ** 2
        isotropic = conditions.ensemble == "npt_isotropic"
        cell = {
            "hydrostatic": isotropic,
            "externalstress": -conditions.pressure_GPa * units.GPa,
            "P_tau": period,
            "P_mass": mass if isotropic else mass / 3,
        }
    with warnings.catch_warnings():
        # ASE warns of any constraint; the one of the centre of mass is tested in tests/dynamics.
        warnings.filterwarnings("ignore", ".*has not been tested with constraints")
        integrator = Integrator(  # type: ignore[no-untyped-call]
            atoms,
            timestep_fs * units.fs,
            temperature_K=None if conditions.ensemble == "nve" else temperature_K,
            T_tau=1000 * units.fs / settings.friction_per_ps,
            rng=rng,
            **cell,
        )
    if conditions.is_npt:
        integrator.p_eps = np.zeros(() if integrator.hydrostatic else (3, 3))
    if barostat is not None:
        integrator.p_eps, integrator.force_eps = barostat
    return integrator
