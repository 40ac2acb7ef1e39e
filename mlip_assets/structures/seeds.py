"""The starting structures of a campaign: one method per kind, one random stream per seed."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Callable, Container, Iterator
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.io import read
from ase.optimize import FIRE

from mlip_assets.structures.alloys import decorate, parent_lattice
from mlip_assets.structures.contacts import distance_ratio
from mlip_assets.structures.defects import with_antisite, with_interstitial
from mlip_assets.structures.melting import melt_and_quench
from mlip_assets.structures.molecules import find_molecule
from mlip_assets.structures.packing import (
    ContactDistances,
    formula_units,
    pack_cluster,
    pack_liquid,
)
from mlip_assets.structures.prototypes import UnknownPrototypeError, find_prototype
from mlip_assets.structures.surfaces import cut_slab

if TYPE_CHECKING:
    from mlip_assets.campaign.campaign import Campaign

_log = logging.getLogger(__name__)

_MAX_RATTLE_ATTEMPTS = 20
_RELAXATION_STEPS = 60
_MAX_RELAXED_FORCE_EV_PER_A = 1.0
_MAX_STEP_A = 0.05
_REMEDY = {
    **dict.fromkeys(
        ("crystal", "vacancy", "antisite", "slab"), "check the structure file in seeds.files"
    ),
    "strained": "use strains with less compression",
    "sheared": "use smaller shears",
    "interstitial": "the crystal has no void of this size; leave the kind out",
    "rattled": "lower seeds.rattle_A",
    "alloy": "give a structure file with a larger cell in seeds.files",
    "liquid": "lower seeds.liquid_density_ratio",
    "melt_quench": "lower seeds.liquid_density_ratio",
    "cluster": "lower guards.min_distance_ratio",
    "molecule": "lower guards.min_distance_ratio",
}


def build_seeds(campaign: Campaign, *, calculator: Any | None = None) -> list[Atoms]:
    """Build every starting structure of a campaign.

    The random numbers of a structure depend only on the campaign's random seed and on the
    structure's name, so that adding a kind does not change the others.

    Parameters
    ----------
    campaign
        Its composition, ``seeds`` settings and ``random_seed`` are used.
    calculator
        ASE calculator that relaxes the disordered seeds (liquid, cluster) by a few short steps, and
        moves the atoms of ``melt_quench``. None: random packings are not relaxed.

    Returns
    -------
    list[Atoms]
        ``campaign.n_seeds`` structures, in the order of ``campaign.seeds.kinds``; each with
        ``info["seed_name"]`` (unique, safe in file names) and ``info["seed_kind"]``. No calculator
        is attached.

    Raises
    ------
    ValueError
        No crystal is tabulated for the composition, a structure file has partly occupied sites, two
        atoms are closer than ``guards.min_distance_ratio`` allows, or the calculator leads to an
        unphysical melt.

    Examples
    --------
    >>> from mlip_assets import Campaign, build_seeds
    >>> campaign = Campaign(
    ...     name="salt",
    ...     composition="NaCl",
    ...     seeds={"kinds": ["crystal", "strained"], "strains": [-0.05, 0.05]},
    ... )
    >>> for atoms in build_seeds(campaign):
    ...     print(atoms.info["seed_name"], atoms.get_chemical_formula(), round(atoms.get_volume()))
    crystal Cl4Na4 179
    strained-m05 Cl4Na4 154
    strained-p05 Cl4Na4 208
    """
    builder = _SeedBuilder(campaign, calculator)
    seeds: list[Atoms] = []
    for kind in campaign.seeds.kinds:
        for name, atoms in builder.build(kind):
            closest = distance_ratio(atoms)
            if closest < campaign.guards.min_distance_ratio:
                raise ValueError(
                    f"seed '{name}': two atoms are at {closest:.2f} of the sum of their covalent "
                    f"radii, below guards.min_distance_ratio = {campaign.guards.min_distance_ratio}"
                    f"; {_REMEDY[kind]}"
                )
            atoms.calc = None
            taken = {seed.info["seed_name"] for seed in seeds}
            atoms.info = {"seed_name": _unused(name, taken), "seed_kind": kind}
            seeds.append(atoms)
    return seeds


class _SeedBuilder:
    """Builds the seeds of each kind from the settings, the crystals and the calculator."""

    def __init__(self, campaign: Campaign, calculator: Any | None) -> None:
        self.campaign = campaign
        self.settings = campaign.seeds
        self.calculator = calculator

    def build(self, kind: str) -> Iterator[tuple[str, Atoms]]:
        """Name and structure of every seed of one kind."""
        builders: dict[str, Callable[[], Iterator[tuple[str, Atoms]]]] = {
            "crystal": self._crystals,
            "strained": self._strained,
            "sheared": self._sheared,
            "vacancy": self._vacancy,
            "interstitial": self._interstitials,
            "antisite": self._antisites,
            "rattled": self._rattled,
            "slab": self._slabs,
            "alloy": self._alloy,
            "liquid": self._liquid,
            "melt_quench": self._melt_quench,
            "cluster": self._cluster,
            "molecule": self._molecules,
        }
        return builders[kind]()

    @cached_property
    def crystals(self) -> dict[str, Atoms]:
        """Unit cells by seed name."""
        files = self.settings.files
        if not files:
            prototype, a_A = self.settings.prototype, self.settings.lattice_constant_A
            return {"crystal": find_prototype(self.campaign.composition, prototype, a_A)}
        crystals: dict[str, Atoms] = {}
        for file in files:
            stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(file).stem)
            name = "crystal" if len(files) == 1 else f"crystal-{stem}"
            crystals[_unused(name, crystals)] = _read_crystal(file)
        return crystals

    @property
    def unit_cell(self) -> Atoms:
        """The crystal from which all other seeds are derived."""
        return next(iter(self.crystals.values()))

    def rng(self, name: str) -> np.random.Generator:
        """Random stream of one seed."""
        return np.random.default_rng([self.campaign.random_seed, zlib.crc32(name.encode())])

    def _crystals(self) -> Iterator[tuple[str, Atoms]]:
        for name, unit_cell in self.crystals.items():
            yield name, near_cubic_supercell(unit_cell, self.settings.crystal_atoms)

    def _strained(self) -> Iterator[tuple[str, Atoms]]:
        for strain in self.settings.strains:
            atoms = near_cubic_supercell(self.unit_cell, self.settings.crystal_atoms)
            atoms.set_cell(atoms.cell * (1 + strain))
            atoms.positions *= 1 + strain
            yield f"strained-{_percent(strain)}", atoms

    def _sheared(self) -> Iterator[tuple[str, Atoms]]:
        for shear in self.settings.shears:
            atoms = near_cubic_supercell(self.unit_cell, self.settings.crystal_atoms)
            yield f"sheared-{_percent(shear)}", sheared(atoms, shear)

    def _defect_host(self) -> Atoms:
        """A supercell of at least three atoms, so that a defect has neighbours besides its images."""
        return near_cubic_supercell(self.unit_cell, max(self.settings.crystal_atoms, 3))

    def _vacancy(self) -> Iterator[tuple[str, Atoms]]:
        atoms = self._defect_host()
        if len(atoms) < 2:
            raise ValueError(
                f"seeds.kinds: {self.settings.files[0]} contains one isolated atom, which cannot have "
                "a vacancy; leave out 'vacancy'"
            )
        del atoms[int(self.rng("vacancy").integers(len(atoms)))]
        yield "vacancy", atoms

    def _interstitials(self) -> Iterator[tuple[str, Atoms]]:
        for symbol in self.campaign.elements:
            name = f"interstitial-{symbol}"
            yield name, with_interstitial(self._defect_host(), symbol, self.rng(name))

    def _antisites(self) -> Iterator[tuple[str, Atoms]]:
        for symbol, on in permutations(self.campaign.elements, 2):
            name = f"antisite-{symbol}-on-{on}"
            yield name, with_antisite(self._defect_host(), symbol, on, self.rng(name))

    def _rattled(self) -> Iterator[tuple[str, Atoms]]:
        perfect, rng = self._defect_host(), self.rng("rattled")
        for _ in range(_MAX_RATTLE_ATTEMPTS):
            atoms = perfect.copy()
            atoms.positions += rng.normal(0, self.settings.rattle_A, atoms.positions.shape)
            if distance_ratio(atoms) >= self.campaign.guards.min_distance_ratio:
                break
        yield "rattled", atoms

    def _slabs(self) -> Iterator[tuple[str, Atoms]]:
        for miller in self.settings.surfaces:
            indices = "-".join(f"m{-index}" if index < 0 else str(index) for index in miller)
            yield (
                f"slab-{indices}",
                cut_slab(
                    self.unit_cell,
                    miller,
                    thickness_A=self.settings.slab_thickness_A,
                    min_atoms=self.settings.slab_atoms,
                    vacuum_A=self.settings.vacuum_A,
                ),
            )

    def _alloy(self) -> Iterator[tuple[str, Atoms]]:
        given = self.settings.files or self.settings.prototype
        lattice = self.unit_cell if given else parent_lattice(self.campaign.formula)
        sites = near_cubic_supercell(lattice, self.settings.alloy_atoms)
        yield "alloy", decorate(sites, self.campaign.formula, self.rng("alloy"))

    def _molecules(self) -> Iterator[tuple[str, Atoms]]:
        for name in self.settings.molecules or (self.campaign.composition,):
            atoms = find_molecule(name)
            atoms.center(vacuum=self.settings.vacuum_A)
            yield f"molecule-{name}", atoms

    def _liquid(self) -> Iterator[tuple[str, Atoms]]:
        yield "liquid", self._relaxed(self._packed_liquid("liquid"), "liquid")

    def _melt_quench(self) -> Iterator[tuple[str, Atoms]]:
        if self.calculator is None:
            raise ValueError("seeds.kinds: 'melt_quench' needs a calculator to move the atoms")
        settings, min_ratio = self.settings, self.campaign.guards.min_distance_ratio
        start = self._relaxed(self._packed_liquid("melt_quench"), "melt_quench")
        try:
            liquid, glass = melt_and_quench(
                start,
                self.calculator,
                melt_temperature_K=settings.melt_temperature_K,
                melt_steps=settings.melt_steps,
                quench_steps=settings.quench_steps,
                timestep_fs=self.campaign.exploration.timestep_fs,
                is_physical=lambda atoms: distance_ratio(atoms) >= min_ratio,
                rng=self.rng("melt_quench dynamics"),
            )
        except FloatingPointError as error:
            raise ValueError(
                f"seed 'melt-quench': {error}; lower seeds.melt_temperature_K or "
                "exploration.timestep_fs, or use a surrogate that describes the melt"
            ) from error
        yield "melt-quench-liquid", liquid
        yield "melt-quench-glass", self._relaxed(glass, "melt-quench-glass")

    def _packed_liquid(self, name: str) -> Atoms:
        crystal = self.unit_cell.copy()
        if not crystal.pbc.all():
            raise ValueError(
                "seeds.kinds: the density of a liquid is derived from a crystal, but "
                f"{self.settings.files[0]} is not periodic in all three directions; leave out "
                "'liquid' or list a crystal first in seeds.files"
            )
        symbols = formula_units(self.campaign.formula, self.settings.liquid_atoms)
        ratio = self.settings.liquid_density_ratio
        density = ratio * crystal.get_masses().sum() / crystal.get_volume()
        volume_A3 = float(Atoms(symbols).get_masses().sum() / density)
        crystal.set_cell(crystal.cell * ratio ** (-1 / 3), scale_atoms=True)
        return pack_liquid(symbols, volume_A3, ContactDistances(crystal), self.rng(name))

    def _cluster(self) -> Iterator[tuple[str, Atoms]]:
        symbols = formula_units(self.campaign.formula, self.settings.cluster_atoms)
        try:
            contacts = ContactDistances(self.unit_cell)
        except UnknownPrototypeError:  # no crystal is needed: covalent radii suffice
            contacts = ContactDistances()
        vacuum = self.settings.vacuum_A
        packed = pack_cluster(symbols, contacts, vacuum, self.rng("cluster"))
        relaxed = self._relaxed(packed, "cluster")
        relaxed.center(vacuum=vacuum)
        yield "cluster", relaxed

    def _relaxed(self, packed: Atoms, name: str) -> Atoms:
        """A few short relaxation steps; the packing itself where these lead to a close contact."""
        if self.calculator is None:
            return packed
        atoms: Atoms = packed.copy()
        atoms.calc = self.calculator
        max_step = _MAX_STEP_A * np.sqrt(len(atoms))  # FIRE bounds the norm over all atoms
        optimiser = FIRE(atoms, logfile=None, maxstep=max_step)
        optimiser.run(fmax=_MAX_RELAXED_FORCE_EV_PER_A, steps=_RELAXATION_STEPS)
        atoms.calc = None
        finite = bool(np.isfinite(atoms.positions).all())  # a neighbour search needs it
        if finite and distance_ratio(atoms) >= self.campaign.guards.min_distance_ratio:
            return atoms
        _log.warning(
            "seed '%s': the relaxation led to a close contact or to infinite positions; the "
            "unrelaxed packing is used",
            name,
        )
        return packed


def sheared(atoms: Atoms, shear: float) -> Atoms:
    """Pure shear ε_xy = ε_yx = ``shear`` of cell and atoms, at constant volume."""
    deformation = np.eye(3)
    deformation[0, 1] = deformation[1, 0] = shear
    deformation /= np.linalg.det(deformation) ** (1 / 3)
    deformed: Atoms = atoms.copy()
    deformed.set_cell(atoms.cell.array @ deformation)
    deformed.positions = atoms.positions @ deformation
    return deformed


def near_cubic_supercell(unit_cell: Atoms, min_atoms: int) -> Atoms:
    """Repeat the shortest periodic vector until there are at least ``min_atoms`` atoms.

    A structure that is not periodic along any vector is returned unchanged.
    """
    repeats = np.ones(3, dtype=int)
    lengths = unit_cell.cell.lengths()
    while unit_cell.pbc.any() and len(unit_cell) * repeats.prod() < min_atoms:
        repeats[np.where(unit_cell.pbc, lengths * repeats, np.inf).round(6).argmin()] += 1
    supercell: Atoms = unit_cell.repeat(repeats)
    return supercell


def _read_crystal(file: str) -> Atoms:
    """The last structure in a file, without velocities, constraints or stored results."""
    atoms = read(file)
    assert isinstance(atoms, Atoms)
    for site in atoms.info.get("occupancy", {}).values():
        if len(site) > 1 or min(site.values()) < 1:
            raise ValueError(
                f"{file}: a site has mixed or partial occupancy ({site}), which one structure cannot "
                "represent; give an ordered supercell instead"
            )
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def _percent(strain: float) -> str:
    """``p05`` for +5 %, ``m02_5`` for −2.5 %."""
    whole, _, decimals = f"{abs(strain) * 100:.10g}".partition(".")
    return ("m" if strain < 0 else "p") + whole.zfill(2) + (f"_{decimals}" if decimals else "")


def _unused(name: str, taken: Container[str]) -> str:
    """The name, with a number if it is taken already."""
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}-{number}", number + 1
    return candidate
