"""The starting structures of a campaign: one function a kind, one random stream a seed."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Callable, Iterator
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
from mlip_assets.structures.packing import Contacts, formula_units, pack_cluster, pack_liquid
from mlip_assets.structures.prototypes import UnknownPrototypeError, find_prototype
from mlip_assets.structures.surfaces import cut_slab

if TYPE_CHECKING:
    from mlip_assets.campaign.campaign import Campaign

_log = logging.getLogger(__name__)

_RATTLE_ATTEMPTS = 20
_RELAXATION_STEPS = 60
_RELAXED_FORCE_EV_PER_A = 1.0
_LONGEST_STEP_A = 0.05
_REMEDY = {
    **dict.fromkeys(
        ("crystal", "vacancy", "antisite", "slab"), "check the structure file in seeds.files"
    ),
    "strained": "use strains that compress less",
    "sheared": "use smaller shears",
    "interstitial": "its crystal has no hole so large; leave the kind out",
    "rattled": "lower seeds.rattle_A",
    "alloy": "name a structure file of a roomier lattice in seeds.files",
    "liquid": "lower seeds.liquid_density_ratio",
    "melt_quench": "lower seeds.liquid_density_ratio",
    "cluster": "lower guards.min_distance_ratio",
    "molecule": "lower guards.min_distance_ratio",
}


def build_seeds(campaign: Campaign, *, calculator: Any | None = None) -> list[Atoms]:
    """Build every starting structure that a campaign asks for.

    Each structure depends on the campaign's seed and its own name alone, so adding a kind leaves
    the others as they were.

    Parameters
    ----------
    campaign
        Its composition, ``seeds`` settings and ``seed``.
    calculator
        An ASE calculator with which the disordered seeds (liquid, cluster) are relaxed for a few
        short steps, None leaves them as packed; ``melt_quench`` is dynamics with it.

    Returns
    -------
    list[Atoms]
        ``campaign.n_seeds`` structures, in the order of ``campaign.seeds.kinds``; each with
        ``info["seed_name"]`` (unique, safe in file names) and ``info["seed_kind"]``. No calculator
        is attached.

    Raises
    ------
    ValueError
        No crystal is known for the composition, a structure file has partly occupied sites, the
        settings force two atoms closer than ``guards.min_distance_ratio`` allows, or the calculator
        does not hold the melt together.
    """
    workshop = _Workshop(campaign, calculator)
    seeds: list[Atoms] = []
    for kind in campaign.seeds.kinds:
        for name, atoms in workshop.build(kind):
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


class _Workshop:
    """What the kinds share: settings, the crystals, the calculator and the random streams."""

    def __init__(self, campaign: Campaign, calculator: Any | None) -> None:
        self.campaign = campaign
        self.settings = campaign.seeds
        self.calculator = calculator

    def build(self, kind: str) -> Iterator[tuple[str, Atoms]]:
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
            prototype, edge_A = self.settings.prototype, self.settings.lattice_constant_A
            return {"crystal": find_prototype(self.campaign.composition, prototype, edge_A)}
        crystals: dict[str, Atoms] = {}
        for file in files:
            stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(file).stem)
            name = "crystal" if len(files) == 1 else f"crystal-{stem}"
            crystals[_unused(name, crystals)] = _read_crystal(file)
        return crystals

    @property
    def unit_cell(self) -> Atoms:
        """The crystal that all derived seeds come from."""
        return next(iter(self.crystals.values()))

    def rng(self, name: str) -> np.random.Generator:
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
        """The crystal, large enough that one missing or moved atom has neighbours of its own."""
        return near_cubic_supercell(self.unit_cell, max(self.settings.crystal_atoms, 3))

    def _vacancy(self) -> Iterator[tuple[str, Atoms]]:
        atoms = self._defect_host()
        if len(atoms) < 2:
            raise ValueError(
                f"seeds.kinds: {self.settings.files[0]} holds one isolated atom, which cannot lose "
                "one; leave out 'vacancy'"
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
        for _ in range(_RATTLE_ATTEMPTS):
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
                    at_least=self.settings.slab_atoms,
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
        settings, closest = self.settings, self.campaign.guards.min_distance_ratio
        start = self._relaxed(self._packed_liquid("melt_quench"), "melt_quench")
        try:
            liquid, glass = melt_and_quench(
                start,
                self.calculator,
                melt_temperature_K=settings.melt_temperature_K,
                melt_steps=settings.melt_steps,
                quench_steps=settings.quench_steps,
                timestep_fs=self.campaign.exploration.timestep_fs,
                sound=lambda atoms: distance_ratio(atoms) >= closest,
                rng=self.rng("melt_quench dynamics"),
            )
        except FloatingPointError as error:
            raise ValueError(
                f"seed 'melt-quench': {error}; lower seeds.melt_temperature_K or "
                "exploration.timestep_fs, or use a surrogate that knows the melt"
            ) from error
        yield "melt-quench-liquid", liquid
        yield "melt-quench-glass", self._relaxed(glass, "melt-quench-glass")

    def _packed_liquid(self, name: str) -> Atoms:
        crystal = self.unit_cell.copy()
        if not crystal.pbc.all():
            raise ValueError(
                "seeds.kinds: a liquid takes its density from a crystal, but "
                f"{self.settings.files[0]} is not periodic in all three directions; leave out "
                "'liquid' or name a crystal first in seeds.files"
            )
        symbols = formula_units(self.campaign.formula, self.settings.liquid_atoms)
        ratio = self.settings.liquid_density_ratio
        density = ratio * crystal.get_masses().sum() / crystal.get_volume()
        volume_A3 = float(Atoms(symbols).get_masses().sum() / density)
        crystal.set_cell(crystal.cell * ratio ** (-1 / 3), scale_atoms=True)
        return pack_liquid(symbols, volume_A3, Contacts(crystal), self.rng(name))

    def _cluster(self) -> Iterator[tuple[str, Atoms]]:
        symbols = formula_units(self.campaign.formula, self.settings.cluster_atoms)
        try:
            contacts = Contacts(self.unit_cell)
        except UnknownPrototypeError:  # a molecule needs no crystal: its covalent radii will do
            contacts = Contacts()
        vacuum = self.settings.vacuum_A
        packed = pack_cluster(symbols, contacts, vacuum, self.rng("cluster"))
        relaxed = self._relaxed(packed, "cluster")
        relaxed.center(vacuum=vacuum)
        yield "cluster", relaxed

    def _relaxed(self, packed: Atoms, name: str) -> Atoms:
        """A few short steps downhill; the packing itself where the model pulls atoms together."""
        if self.calculator is None:
            return packed
        atoms: Atoms = packed.copy()
        atoms.calc = self.calculator
        longest = _LONGEST_STEP_A * np.sqrt(len(atoms))  # FIRE bounds the norm over all atoms
        optimiser = FIRE(atoms, logfile=None, maxstep=longest)
        optimiser.run(fmax=_RELAXED_FORCE_EV_PER_A, steps=_RELAXATION_STEPS)
        atoms.calc = None
        finite = bool(np.isfinite(atoms.positions).all())  # no list of neighbours ends without
        if finite and distance_ratio(atoms) >= self.campaign.guards.min_distance_ratio:
            return atoms
        _log.warning(
            "seed '%s': relaxation pulled atoms together or lost them; kept as packed", name
        )
        return packed


def sheared(atoms: Atoms, shear: float) -> Atoms:
    """Pure shear ε_xy = ε_yx = ``shear`` of cell and atoms; the volume stays."""
    deformation = np.eye(3)
    deformation[0, 1] = deformation[1, 0] = shear
    deformation /= np.linalg.det(deformation) ** (1 / 3)
    deformed: Atoms = atoms.copy()
    deformed.set_cell(atoms.cell.array @ deformation)
    deformed.positions = atoms.positions @ deformation
    return deformed


def near_cubic_supercell(unit_cell: Atoms, at_least: int) -> Atoms:
    """Repeat the shortest periodic vector until there are enough atoms.

    A structure that is not periodic along any vector is returned as it is.
    """
    repeats = np.ones(3, dtype=int)
    lengths = unit_cell.cell.lengths()
    while unit_cell.pbc.any() and len(unit_cell) * repeats.prod() < at_least:
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
                f"{file}: a site is shared or partly occupied ({site}), which one structure cannot "
                "show; write an ordered supercell instead"
            )
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def _percent(strain: float) -> str:
    """``p05`` for +5 %, ``m02_5`` for −2.5 %."""
    whole, _, rest = f"{abs(strain) * 100:.10g}".partition(".")
    return ("m" if strain < 0 else "p") + whole.zfill(2) + (f"_{rest}" if rest else "")


def _unused(name: str, taken: Any) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}-{number}", number + 1
    return candidate
