"""The seeds of a campaign: number, names, random streams, packings and structure files."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.io import write
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.campaign import Campaign
from mlip_assets.structures import build_seeds, find_prototype
from mlip_assets.structures.contacts import distance_ratio
from mlip_assets.structures.packing import ContactDistances, pack_liquid
from mlip_assets.structures.seeds import near_cubic_supercell

KINDS = ("crystal", "strained", "vacancy", "rattled", "liquid", "cluster")


def campaign(composition: str = "Si", seed: int = 0, **seeds: Any) -> Campaign:
    return Campaign(name="test", composition=composition, random_seed=seed, seeds=seeds)


def seed_of(kind: str, composition: str = "Si", **seeds: Any) -> Atoms:
    (only,) = build_seeds(campaign(composition, kinds=(kind,), **seeds))
    return only


@settings(max_examples=10, deadline=None)
@given(
    composition=st.sampled_from(["Si", "Al", "Fe", "Mg", "Ar", "Sn", "NaCl", "GaAs", "CsCl"]),
    kinds=st.permutations(KINDS).flatmap(
        lambda order: st.integers(1, 6).map(lambda n: tuple(order[:n]))
    ),
    crystal_atoms=st.integers(1, 20),
    liquid_atoms=st.integers(2, 16),
    cluster_atoms=st.integers(2, 12),
    ratio=st.sampled_from([0.7, 1.0, 1.1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_build_seeds_gives_requested_kinds_without_close_contacts(
    composition: str,
    kinds: tuple[Any, ...],
    crystal_atoms: int,
    liquid_atoms: int,
    cluster_atoms: int,
    ratio: float,
    seed: int,
) -> None:
    requested = campaign(
        composition,
        seed,
        kinds=kinds,
        crystal_atoms=crystal_atoms,
        liquid_atoms=liquid_atoms,
        cluster_atoms=cluster_atoms,
        liquid_density_ratio=ratio,
    )
    seeds = build_seeds(requested)
    names = [atoms.info["seed_name"] for atoms in seeds]
    assert len(seeds) == requested.n_seeds
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names)
    assert tuple(dict.fromkeys(atoms.info["seed_kind"] for atoms in seeds)) == kinds
    for atoms in seeds:
        assert distance_ratio(atoms) > requested.guards.min_distance_ratio
        assert np.isfinite(atoms.positions).all()
        counts = atoms.symbols.formula.count()
        if atoms.info["seed_kind"] == "vacancy":
            assert max(counts.values()) - min(counts.values()) == (len(counts) > 1)
        else:
            assert len(set(counts.values())) == 1
        assert set(counts) == set(requested.elements)


def test_build_seeds_default_names() -> None:
    names = [atoms.info["seed_name"] for atoms in build_seeds(campaign())]
    assert names == [
        *("crystal", "strained-m05", "strained-p05", "vacancy", "rattled", "liquid", "cluster")
    ]


def test_build_seeds_depends_on_the_random_seed_alone() -> None:
    first, again, other = (build_seeds(campaign("NaCl", seed)) for seed in (7, 7, 8))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.positions, b.positions)
    for a, b in zip(first, other, strict=True):
        match a.info["seed_kind"]:
            case "crystal" | "strained":
                assert a == b
            case "rattled" | "liquid" | "cluster":
                assert not np.allclose(a.positions, b.positions)


@pytest.mark.parametrize("kind", KINDS)
def test_random_stream_of_a_seed_does_not_depend_on_the_other_kinds(kind: str) -> None:
    alone = build_seeds(campaign(kinds=(kind,)))
    among = [a for a in build_seeds(campaign()) if a.info["seed_kind"] == kind]
    for a, b in zip(alone, among, strict=True):
        assert a == b


@pytest.mark.parametrize(
    ("composition", "min_atoms", "n_atoms"),
    [("Si", 8, 8), ("Si", 9, 16), ("Si", 64, 64), ("Cu", 16, 16), ("Cu", 17, 32), ("Mg", 8, 8)],
)
def test_crystal_is_the_smallest_nearly_cubic_supercell(
    composition: str, min_atoms: int, n_atoms: int
) -> None:
    crystal = seed_of("crystal", composition, crystal_atoms=min_atoms)
    assert len(crystal) == n_atoms
    lengths = crystal.cell.lengths()
    assert lengths.max() / lengths.min() <= 2 + 1e-9


@pytest.mark.parametrize("strain", [-0.1, -0.025, 0.0, 0.05])
def test_strained_crystal_has_the_requested_strain(strain: float) -> None:
    crystal = seed_of("crystal", "MgO")
    strained = seed_of("strained", "MgO", strains=(strain,))
    assert strained.cell.array == pytest.approx(crystal.cell.array * (1 + strain))
    assert strained.get_scaled_positions() == pytest.approx(crystal.get_scaled_positions())


def test_strained_crystals_are_named_by_their_strain() -> None:
    strains = (-0.025, 0.0, 0.125, 0.1, 0.1)
    names = [
        a.info["seed_name"] for a in build_seeds(campaign(kinds=["strained"], strains=strains))
    ]
    assert names == [
        "strained-m02_5",
        "strained-p00",
        "strained-p12_5",
        "strained-p10",
        "strained-p10-2",
    ]


@pytest.mark.parametrize(("composition", "left"), [("Fe", 3), ("Si", 7), ("Cu", 3)])
def test_vacancy_removes_one_atom_of_a_supercell(composition: str, left: int) -> None:
    vacancy = seed_of("vacancy", composition, crystal_atoms=1)
    host = near_cubic_supercell(seed_of("crystal", composition, crystal_atoms=1), left)
    assert len(vacancy) == left
    assert vacancy.get_volume() == pytest.approx(host.get_volume())
    kept = [any(np.allclose(p, q) for q in host.positions) for p in vacancy.positions]
    assert all(kept)


def test_rattled_displacements_have_the_requested_width() -> None:
    moved = seed_of("rattled", crystal_atoms=512, rattle_A=0.1)
    perfect = seed_of("crystal", crystal_atoms=512)
    steps = (moved.positions - perfect.positions).ravel()
    assert steps.std() == pytest.approx(0.1, rel=0.08)
    assert abs(steps.mean()) < 4 * 0.1 / np.sqrt(steps.size)


def test_rattled_with_close_contacts_names_rattle_A() -> None:
    with pytest.raises(ValueError, match=r"'rattled'.*rattle_A"):
        build_seeds(campaign("Cu", kinds=["rattled"], crystal_atoms=108, rattle_A=0.9))


@pytest.mark.parametrize(("composition", "n_atoms"), [("Si", 64), ("Cu", 32), ("NaCl", 32)])
@pytest.mark.parametrize("ratio", [0.8, 1.1])
def test_liquid_density_distances_and_disorder(
    composition: str, n_atoms: int, ratio: float
) -> None:
    liquid = seed_of("liquid", composition, liquid_atoms=n_atoms, liquid_density_ratio=ratio)
    crystal = seed_of("crystal", composition)
    densities = [a.get_masses().sum() / a.get_volume() for a in (liquid, crystal)]
    assert len(liquid) == n_atoms
    assert densities[0] / densities[1] == pytest.approx(ratio)
    assert np.ptp(liquid.cell.lengths()) == pytest.approx(0)
    assert liquid.pbc.all()
    nearest = liquid.get_all_distances(mic=True)[np.triu_indices(n_atoms, 1)].min()
    in_crystal = crystal.repeat(2).get_all_distances(mic=True)[0][1:].min()
    assert 0.7 * ratio ** (-1 / 3) < nearest / in_crystal < 1.15
    # no lattice: neighbour distances are distributed, unlike the shells of the crystal
    second = np.sort(liquid.get_all_distances(mic=True), axis=1)[:, 2]
    assert second.std() > 0.02


def test_liquid_and_cluster_contain_whole_formula_units() -> None:
    for kind, min_atoms in (("liquid", 7), ("cluster", 5)):
        atoms = seed_of(kind, "NaCl", **{f"{kind}_atoms": min_atoms})
        assert len(atoms) == min_atoms + 1
        assert atoms.symbols.formula.count()["Na"] == (min_atoms + 1) // 2


@pytest.mark.parametrize("composition", ["Si", "Ar", "NaCl", "Cu"])
def test_cluster_is_compact_isolated_and_has_the_distances_of_the_crystal(composition: str) -> None:
    cluster = seed_of("cluster", composition, cluster_atoms=14, vacuum_A=6.0)
    crystal = seed_of("crystal", composition, crystal_atoms=8).repeat(2)
    distances = cluster.get_all_distances()
    nearest = crystal.get_all_distances(mic=True)[0][1:].min()
    assert not cluster.pbc.any()
    assert distances[np.triu_indices(14, 1)].min() == pytest.approx(nearest, rel=1e-6)
    assert distances.max() < 6 * nearest  # a chain of 14 atoms has a length of 13
    low, high = cluster.positions.min(axis=0), cluster.positions.max(axis=0)
    assert low == pytest.approx(6.0)
    assert cluster.cell.lengths() - high == pytest.approx(6.0)


def test_cluster_of_molecular_composition_uses_covalent_radii() -> None:
    cluster = seed_of("cluster", "H2O", cluster_atoms=9)
    assert cluster.get_chemical_formula() == "H6O3"
    assert distance_ratio(cluster) > 0.99


def test_calculator_relaxes_only_the_disordered_seeds() -> None:
    requested = campaign("Cu", liquid_atoms=16, cluster_atoms=8)
    morse = MorsePotential(epsilon=0.6, r0=2.56, rho0=6.0, rcut1=4.5, rcut2=6.0)
    packed, relaxed = build_seeds(requested), build_seeds(requested, calculator=morse)
    for before, after in zip(packed, relaxed, strict=True):
        assert after.calc is None
        if after.info["seed_kind"] in {"liquid", "cluster"}:
            energies = []
            for atoms in (before, after):
                atoms.calc = morse
                energies.append(atoms.get_potential_energy())
            assert energies[1] < energies[0]
            assert np.linalg.norm(after.get_forces(), axis=1).max() < 2.0
            assert distance_ratio(after) > requested.guards.min_distance_ratio
        else:
            assert before == after


def test_relaxation_to_close_contacts_is_discarded(caplog: pytest.LogCaptureFixture) -> None:
    requested = campaign("Cu", kinds=["liquid"])
    attractive = LennardJones(sigma=0.3, epsilon=5e5, rc=6.0, smooth=True)
    with caplog.at_level(logging.WARNING):
        (kept,) = build_seeds(requested, calculator=attractive)
    assert "the unrelaxed packing is used" in caplog.text
    assert kept == build_seeds(requested)[0]


@pytest.mark.parametrize("name", ["POSCAR", "cell.cif", "my cell.xyz", "cell.extxyz"])
def test_structure_file_replaces_the_prototype(tmp_path: Path, name: str) -> None:
    cell = bulk("Cu", cubic=True)
    cell.symbols[0] = "Au"
    cell.set_cell(cell.cell * 1.05, scale_atoms=True)
    write(tmp_path / name, cell, format="extxyz" if name.endswith("xyz") else None)
    seeds = build_seeds(campaign("Cu3Au", files=(str(tmp_path / name),)))
    crystal = seeds[0]
    assert crystal.info == {"seed_name": "crystal", "seed_kind": "crystal"}
    assert len(crystal) == 8
    assert crystal.get_volume() / len(crystal) == pytest.approx(cell.get_volume() / len(cell))
    assert {a.get_chemical_formula() for a in seeds[-2:]} == {"Au2Cu6"}


def test_first_structure_file_is_the_host_of_derived_seeds(tmp_path: Path) -> None:
    files = []
    for folder, scale in (("one", 1.0), ("two", 1.1)):
        (tmp_path / folder).mkdir()
        cell = bulk("Al", cubic=True)
        cell.set_cell(cell.cell * scale, scale_atoms=True)
        cell.set_velocities(np.ones((4, 3)))
        write(tmp_path / folder / "al fcc.xyz", cell)
        files.append(str(tmp_path / folder / "al fcc.xyz"))
    requested = campaign("Al", files=files, kinds=("vacancy", "crystal"))
    vacancy, first, second = build_seeds(requested)
    assert requested.n_seeds == 3
    assert first.info["seed_name"] == "crystal-al-fcc"
    assert second.info["seed_name"] == "crystal-al-fcc-2"
    assert vacancy.get_volume() == pytest.approx(first.get_volume())
    assert set(first.arrays) == {"numbers", "positions"}


def test_molecule_file_gives_a_seed_but_no_liquid(tmp_path: Path) -> None:
    write(tmp_path / "water.xyz", molecule("H2O"))
    files = (str(tmp_path / "water.xyz"),)
    crystal, rattled = build_seeds(campaign("H2O", files=files, kinds=("crystal", "rattled")))
    assert len(crystal) == len(rattled) == 3
    with pytest.raises(ValueError, match="not periodic in all three"):
        build_seeds(campaign("H2O", files=files, kinds=("liquid",)))


def test_unsuitable_structure_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "close.xyz", Atoms("Cu2", [[0, 0, 0], [0, 0, 0.5]], cell=[9] * 3, pbc=True))
    with pytest.raises(ValueError, match=r"'crystal'.*seeds\.files"):
        build_seeds(campaign("Cu", files=(str(tmp_path / "close.xyz"),), kinds=("crystal",)))
    atoms = bulk("Cu", cubic=True)
    write(tmp_path / "alloy.cif", atoms)
    text = (tmp_path / "alloy.cif").read_text().replace("1.0000\n", "0.5000\n", 1)
    assert "0.5000\n" in text
    (tmp_path / "alloy.cif").write_text(text)
    with pytest.raises(ValueError, match="partial occupancy"):
        build_seeds(campaign("Cu", files=(str(tmp_path / "alloy.cif"),), kinds=("crystal",)))
    write(tmp_path / "atom.xyz", Atoms("Ar"))
    with pytest.raises(ValueError, match="'vacancy'"):
        build_seeds(campaign("Ar", files=(str(tmp_path / "atom.xyz"),), kinds=("vacancy",)))


@pytest.mark.slow
def test_pack_liquid_refuses_a_box_that_is_too_small() -> None:
    contacts = ContactDistances(bulk("Cu"))
    with pytest.raises(ValueError, match=r"Cu2 does not fit.*liquid_density_ratio"):
        pack_liquid(["Cu"] * 2, 2 * 3.0, contacts, np.random.default_rng(0))


def test_contact_distances_of_a_crystal_and_of_covalent_radii() -> None:
    salt, vacuum = ContactDistances(find_prototype("NaCl")), ContactDistances()
    assert salt.distance(11, 17) == pytest.approx(2.82)
    assert salt.distance(17, 17) == pytest.approx(5.64 / np.sqrt(2))
    assert vacuum.distance(1, 8) == pytest.approx(0.31 + 0.66)
    assert ContactDistances(find_prototype("Ar")).distance(18, 18) == pytest.approx(
        5.26 / np.sqrt(2)
    )
