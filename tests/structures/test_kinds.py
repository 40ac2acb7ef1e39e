"""Each kind of seed: number of atoms, composition, distances, strain and vacuum."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.collections import g2
from ase.io import write
from ase.neighborlist import neighbor_list
from hypothesis import given
from hypothesis import strategies as st

from mlip_assets.campaign import Campaign, CampaignError, load
from mlip_assets.structures import build_seeds, find_molecule, find_prototype, parent_lattice
from mlip_assets.structures.alloys import decorate
from mlip_assets.structures.contacts import distance_ratio
from mlip_assets.structures.defects import with_interstitial


def campaign(composition: str = "Si", seed: int = 0, **seeds: Any) -> Campaign:
    return Campaign(name="test", composition=composition, random_seed=seed, seeds=seeds)


def build(composition: str, kind: str, *, calculator: Any = None, **seeds: Any) -> dict[str, Atoms]:
    settings = campaign(composition, kinds=(kind,), **seeds)
    made = build_seeds(settings, calculator=calculator)
    assert len(made) == settings.n_seeds
    assert {atoms.info["seed_kind"] for atoms in made} == {kind}
    return {atoms.info["seed_name"]: atoms for atoms in made}


def nearest(atoms: Atoms) -> float:
    return float(neighbor_list("d", atoms, 6.0).min())


@pytest.mark.parametrize(
    ("composition", "seed", "digest"),
    [("Si", 0, "f70ee76130be906a"), ("NaCl", 7, "ef2cfe217ef88aca")],
)
def test_default_seeds_equal_those_of_first_release(
    composition: str, seed: int, digest: str
) -> None:
    """Digests of the seeds of the first release; labels in existing ledgers depend on them."""
    found = hashlib.sha256()
    for atoms in build_seeds(campaign(composition, seed)):
        found.update(atoms.info["seed_name"].encode())
        found.update(atoms.numbers.astype("<i8").tobytes())
        numbers = np.concatenate([atoms.cell.array.ravel(), atoms.positions.ravel()])
        found.update((numbers.round(9) + 0.0).astype("<f8").tobytes())
        found.update(atoms.pbc.tobytes())
    assert found.hexdigest()[:16] == digest


@pytest.mark.parametrize("shear", [-0.1, 0.05, 0.2])
@pytest.mark.parametrize("composition", ["MgO", "Mg"])
def test_sheared_crystal_has_requested_strain_and_constant_volume(
    composition: str, shear: float
) -> None:
    (crystal,) = build(composition, "crystal").values()
    (sheared,) = build(composition, "sheared", shears=(shear,)).values()
    assert sheared.get_volume() == pytest.approx(crystal.get_volume(), rel=1e-12)
    deformation = np.linalg.solve(crystal.cell.array, sheared.cell.array)
    assert deformation == pytest.approx(deformation.T)  # a strain, without a rotation
    assert deformation[0, 1] / deformation[0, 0] == pytest.approx(shear)
    assert deformation[2, :2] == pytest.approx([0, 0])
    assert sheared.positions == pytest.approx(crystal.positions @ deformation)


@pytest.mark.parametrize(
    ("composition", "distance_A", "n_neighbours"),
    [
        ("Cu", 3.61 / 2, 6),  # octahedral
        ("Si", 5.43 * 3**0.5 / 4, 4),  # tetrahedral, at the bond length
        ("Fe", 2.87 * 5**0.5 / 4, 4),  # tetrahedral in bcc
    ],
)
def test_interstitial_occupies_the_largest_void(
    composition: str, distance_A: float, n_neighbours: int
) -> None:
    (crystal,) = build(composition, "crystal", crystal_atoms=32).values()
    (defective,) = build(composition, "interstitial", crystal_atoms=32).values()
    assert len(defective) == len(crystal) + 1
    assert defective.positions[:-1] == pytest.approx(crystal.positions)
    others = list(range(len(crystal)))
    distances = np.sort(defective.get_distances(-1, others, mic=True))
    assert distances[:n_neighbours] == pytest.approx(distance_A, rel=1e-6)
    assert distances[n_neighbours] > distance_A * 1.05


def test_interstitials_of_each_element_in_random_equivalent_voids() -> None:
    made = build("NaCl", "interstitial", crystal_atoms=64)
    counts = {name: atoms.symbols.formula.count() for name, atoms in made.items()}
    assert counts == {
        "interstitial-Na": {"Na": 33, "Cl": 32},
        "interstitial-Cl": {"Na": 32, "Cl": 33},
    }
    positions = {
        tuple(
            with_interstitial(bulk("Cu", cubic=True), "Cu", np.random.default_rng(n)).positions[-1]
        )
        for n in range(40)
    }
    assert len(positions) == 4  # octahedral voids of the conventional cell


def test_interstitial_does_not_depend_on_the_choice_of_cell() -> None:
    rng = np.random.default_rng(0)
    primitive = bulk("Cu").repeat((4, 2, 3))
    conventional = bulk("Cu", cubic=True).repeat(2)
    hosts = (primitive, conventional)
    ratios = [distance_ratio(with_interstitial(host, "Cu", rng)) for host in hosts]
    assert ratios[0] == pytest.approx(ratios[1])


def test_antisite_replaces_one_atom_of_the_named_element() -> None:
    made = build("GaAs", "antisite", crystal_atoms=64)
    (crystal,) = build("GaAs", "crystal", crystal_atoms=64).values()
    assert set(made) == {"antisite-Ga-on-As", "antisite-As-on-Ga"}
    for name, atoms in made.items():
        _, symbol, _, on = name.split("-")
        (changed,) = np.flatnonzero(atoms.numbers != crystal.numbers)
        assert (crystal.symbols[changed], atoms.symbols[changed]) == (on, symbol)
        assert atoms.positions == pytest.approx(crystal.positions)


@pytest.mark.parametrize(
    ("composition", "miller", "layer_A"),
    [
        ("Cu", (1, 1, 1), 3.61 / 3**0.5),
        ("Si", (1, 0, 0), 5.43),
        ("MgO", (1, 1, 0), 4.211 / 2**0.5),
        ("Mg", (0, 0, 1), 5.21),
        ("Si", (2, 1, -1), None),
    ],
)
@pytest.mark.parametrize("thickness_A", [3.0, 9.0])
def test_slab_thickness_vacuum_and_stoichiometry(
    composition: str, miller: Any, layer_A: float | None, thickness_A: float
) -> None:
    made = build(
        composition,
        "slab",
        surfaces=(miller,),
        slab_thickness_A=thickness_A,
        slab_atoms=20,
        vacuum_A=5.0,
    )
    (name,) = made
    slab = made[name]
    crystal = find_prototype(composition)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", name)
    assert slab.pbc.tolist() == [True, True, False]
    assert len(slab) >= 20
    assert slab.symbols.formula.reduce()[0] == crystal.symbols.formula.reduce()[0]
    # vacuum on both sides, normal along z
    assert slab.positions[:, 2].min() == pytest.approx(5.0)
    assert slab.cell[2, 2] - slab.positions[:, 2].max() == pytest.approx(5.0)
    assert np.abs(slab.cell.array[2, :2]).max() < 1e-9
    # area times thickness is the volume of the same number of atoms in the crystal
    area = np.linalg.norm(np.cross(slab.cell[0], slab.cell[1]))
    thickness = len(slab) * crystal.get_volume() / len(crystal) / area
    assert thickness >= thickness_A - 1e-6
    if layer_A is not None:
        layers = thickness / layer_A
        assert layers == pytest.approx(round(layers), abs=2e-3)
        assert thickness < thickness_A + layer_A + 1e-6
    # a cut along the requested plane leaves the shortest distance unchanged
    assert nearest(slab) == pytest.approx(nearest(crystal), rel=1e-6)
    sides = slab.cell.lengths()[:2]
    assert sides.max() / sides.min() < 3.5


def test_each_surface_gives_one_slab() -> None:
    made = build("Cu", "slab", surfaces=((1, 0, 0), (1, 1, 1), (1, -1, 0)))
    assert list(made) == ["slab-1-0-0", "slab-1-1-1", "slab-1-m1-0"]
    areas = [np.linalg.norm(np.cross(a.cell[0], a.cell[1])) / len(a) for a in made.values()]
    assert len({round(area, 6) for area in areas}) > 1


@given(
    formula=st.dictionaries(
        st.sampled_from(["Cu", "Au", "Pd", "Ni"]), st.integers(1, 7), min_size=2
    ),
    n_sites=st.integers(4, 60),
    seed=st.integers(0, 99),
)
def test_alloy_composition_is_closest_to_the_formula(
    formula: dict[str, int], n_sites: int, seed: int
) -> None:
    lattice = Atoms("Cu", cell=[2.5] * 3, pbc=True).repeat((n_sites, 1, 1))
    alloy = decorate(lattice, formula, np.random.default_rng(seed))
    counts = alloy.symbols.formula.count()
    assert sum(counts.values()) == n_sites
    assert set(counts) == set(formula)
    total = sum(formula.values())
    exact = {symbol: n_sites * n / total for symbol, n in formula.items()}
    if min(exact.values()) >= 1:
        assert all(abs(counts[s] - exact[s]) < 1 for s in formula)
    assert np.array_equal(alloy.positions, lattice.positions)


def test_alloy_has_lattice_of_most_abundant_element_and_mean_volume() -> None:
    (alloy,) = build("Cu3Au", "alloy", alloy_atoms=32).values()
    assert alloy.symbols.formula.count() == {"Cu": 24, "Au": 8}
    volumes = {s: find_prototype(s).get_volume() / 4 for s in ("Cu", "Au")}
    mean = 0.75 * volumes["Cu"] + 0.25 * volumes["Au"]
    assert alloy.get_volume() / 32 == pytest.approx(mean)
    assert nearest(alloy) == pytest.approx((4 * mean) ** (1 / 3) / 2**0.5)
    (other,) = build_seeds(campaign("Cu3Au", seed=1, kinds=("alloy",), alloy_atoms=32))
    assert (other.numbers != alloy.numbers).any()
    assert other.positions == pytest.approx(alloy.positions)


def test_alloy_uses_the_lattice_of_a_structure_file(tmp_path: Path) -> None:
    ordered = bulk("CuAu", "cesiumchloride", a=3.1)
    write(tmp_path / "b2.xyz", ordered, format="extxyz")
    files = (str(tmp_path / "b2.xyz"),)
    (alloy,) = build("CuAu", "alloy", files=files, alloy_atoms=54).values()
    assert alloy.symbols.formula.count() == {"Cu": 27, "Au": 27}
    bonds = neighbor_list("ij", alloy, 2.8)
    alike = np.mean(alloy.numbers[bonds[0]] == alloy.numbers[bonds[1]])
    assert 0.3 < alike < 0.7  # none in the ordered file
    with pytest.raises(ValueError, match="most abundant element"):
        parent_lattice({"O": 2, "Ti": 1})


@pytest.mark.slow
def test_melt_quench_gives_a_liquid_and_a_glass_of_lower_energy() -> None:
    settings = {
        "liquid_atoms": 32,
        "melt_temperature_K": 3000,
        "melt_steps": 250,
        "quench_steps": 250,
        "liquid_density_ratio": 0.9,
    }
    made = build("Cu", "melt_quench", calculator=EMT(), **settings)
    assert list(made) == ["melt-quench-liquid", "melt-quench-glass"]
    energies = []
    for atoms in made.values():
        assert len(atoms) == 32
        assert set(atoms.arrays) == {"numbers", "positions"}  # no velocities
        assert atoms.get_volume() == pytest.approx(32 * 3.61**3 / 4 / 0.9)
        assert distance_ratio(atoms) > 0.55
        assert neighbor_list("d", atoms, 2.9).std() > 0.1  # no coordination shells of a crystal
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy() / 32)
    thermal = 1.5 * 8.617e-5 * (3000 - 300)
    assert energies[0] - energies[1] > thermal / 2
    again = build("Cu", "melt_quench", calculator=EMT(), **settings)
    for one, other in zip(made.values(), again.values(), strict=True):
        assert np.array_equal(one.positions, other.positions)


class ContractingCalculator(Calculator):
    """Forces towards the centre of mass, proportional to the distance."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - as ASE declares it

    def __init__(self, force: float) -> None:
        super().__init__()
        self._force = force

    def calculate(self, *arguments: Any, **named: Any) -> None:
        super().calculate(*arguments, **named)
        towards = self.atoms.get_center_of_mass() - self.atoms.positions
        self.results = {"energy": 0.0, "forces": self._force * towards}


@pytest.mark.parametrize("force", [np.nan, 20.0])
def test_melt_quench_reports_an_unphysical_melt(force: float) -> None:
    with pytest.raises(ValueError, match=r"steps of the melt; lower seeds\.melt_temperature_K"):
        build(
            "Cu",
            "melt_quench",
            calculator=ContractingCalculator(force),
            melt_steps=200,
            liquid_atoms=16,
        )
    with pytest.raises(ValueError, match="needs a calculator"):
        build("Cu", "melt_quench")


def test_molecule_is_centred_in_its_box() -> None:
    made = build("C2H6O", "molecule", molecules=("CH3CH2OH", "CH3OCH3"), vacuum_A=6.0)
    assert list(made) == ["molecule-CH3CH2OH", "molecule-CH3OCH3"]
    for name, atoms in made.items():
        assert atoms.get_chemical_formula() == "C2H6O"
        assert not atoms.pbc.any()
        assert atoms.positions.min(axis=0) == pytest.approx(6.0)
        assert atoms.cell.lengths() - atoms.positions.max(axis=0) == pytest.approx(6.0)
        reference = molecule(name.removeprefix("molecule-"))
        assert atoms.get_all_distances() == pytest.approx(reference.get_all_distances())
    (water,) = build("H2O", "molecule").values()
    assert water.get_distances(0, [1, 2]) == pytest.approx(0.969, abs=0.002)


def test_find_molecule_by_name_and_formula() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in g2.names)
    assert find_molecule("OH2").get_chemical_formula() == "H2O"
    with pytest.raises(ValueError, match=r"could be .*CH3CH2OH.*seeds\.molecules"):
        find_molecule("C2H6O")
    with pytest.raises(ValueError, match=r"similar names: .*CH3OH"):
        find_molecule("CH3OHH")


@pytest.mark.parametrize("kind", ["slab", "interstitial"])
def test_slab_and_interstitial_refuse_a_molecule(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "water.xyz", molecule("H2O"))
    with pytest.raises(ValueError, match="periodic in"):
        build("H2O", kind, files=(str(tmp_path / "water.xyz"),))


@pytest.mark.parametrize(
    ("composition", "seeds", "message"),
    [
        ("Si", "kinds: [alloy]", "'alloy' needs at least two elements"),
        ("Si", "kinds: [crystal, antisite]", "'antisite' needs at least two elements"),
        ("Si", "surfaces: [[0, 0, 0]]", "not a lattice plane"),
        ("Si", "surfaces: [[1, 1, 1], [1, 1, 1]]", "surfaces: (1, 1, 1) is listed twice"),
        ("Si", "lattice_constant_A: 5.4", "write both or neither"),
        (
            "Si",
            "{prototype: rocksalt, lattice_constant_A: 5}",
            "seeds.prototype: prototype rocksalt needs elements in the ratio 1 : 1",
        ),
        ("Si", "prototype: diamnd", "did you mean 'diamond'"),
        ("C2H6O", "kinds: [molecule]", "seeds.molecules: 'C2H6O' could be"),
        ("H2O", "{kinds: [molecule], molecules: [CH4]}", "CH4 contains C, which the composition"),
        ("SiO2", "kinds: [alloy]", "a random alloy uses the lattice of its most abundant element"),
        ("Cu3Au", "kinds: [alloy, crystal]", "no crystal structure is tabulated for 'Cu3Au'"),
    ],
)
def test_load_reports_impossible_seeds(
    tmp_path: Path, composition: str, seeds: str, message: str
) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"name: mine\ncomposition: {composition}\nseeds:\n  {seeds}\nsampling: {{n_samples: 1}}\n"
    )
    with pytest.raises(CampaignError) as error:
        load(tmp_path / "mine.yaml")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("composition", "seeds"),
    [
        ("Cu3Au", "kinds: [alloy, cluster]"),
        ("H2O", "kinds: [molecule]"),
        (
            "TiO2",
            "{prototype: rutile, lattice_constant_A: 4.594, kinds: [crystal, antisite, interstitial, slab, sheared]}",
        ),
    ],
)
def test_build_seeds_of_unusual_kinds(tmp_path: Path, composition: str, seeds: str) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"name: mine\ncomposition: {composition}\nseeds:\n  {seeds}\nsampling: {{n_samples: 1}}\n"
    )
    settings = load(tmp_path / "mine.yaml")
    made = build_seeds(settings)
    assert len(made) == settings.n_seeds
    assert len({atoms.info["seed_name"] for atoms in made}) == len(made)
