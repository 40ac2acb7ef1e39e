"""Crystal structures by composition and by prototype, checked by their space groups."""

from __future__ import annotations

import pytest
import spglib
from ase.build import bulk
from ase.data import atomic_numbers, reference_states
from ase.formula import Formula
from ase.neighborlist import neighbor_list

from mlip_assets.structures import find_prototype
from mlip_assets.structures.prototypes import BINARIES


@pytest.mark.parametrize("symbol", ["Si", "C", "Al", "Cu", "Ar", "Fe", "Na", "Po"])
def test_find_prototype_of_cubic_element_has_the_lattice_constant_of_ase(symbol: str) -> None:
    cell = find_prototype(symbol).cell
    assert cell.cellpar() == pytest.approx(
        [reference_states[atomic_numbers[symbol]]["a"]] * 3 + [90] * 3
    )


@pytest.mark.parametrize(
    ("symbol", "n_atoms", "spacegroup"),
    [
        ("Si", 8, 227),
        ("Cu", 4, 225),
        ("Fe", 2, 229),
        ("Mg", 2, 194),
        ("Sn", 4, 141),
        ("In", 2, 139),
        ("Bi", 2, 166),
        ("MgO", 8, 225),
        ("SiC", 8, 216),
        ("CsCl", 2, 221),
    ],
)
def test_find_prototype_has_the_space_group_of_the_crystal(
    symbol: str, n_atoms: int, spacegroup: int
) -> None:
    atoms = find_prototype(symbol)
    found = spglib.get_spacegroup((atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers))
    assert len(atoms) == n_atoms
    assert found.endswith(f"({spacegroup})")
    assert atoms.pbc.all()


def test_find_prototype_of_bct_element_is_the_crystal_of_ase() -> None:
    ours, theirs = find_prototype("Sn"), bulk("Sn")
    assert ours.get_volume() / len(ours) == pytest.approx(theirs.get_volume() / len(theirs))
    shells = [sorted(neighbor_list("d", a, 5.0))[:: len(a)] for a in (ours, theirs)]
    assert shells[0] == pytest.approx(shells[1])


@pytest.mark.parametrize("formula", BINARIES)
def test_binaries_have_unlike_neighbours_at_the_sum_of_covalent_radii(
    formula: str,
) -> None:
    from ase.data import covalent_radii

    atoms = find_prototype(formula)
    i, j, distances = neighbor_list("ijd", atoms, 4.0)
    nearest = distances < distances.min() * 1.01
    assert (atoms.numbers[i[nearest]] != atoms.numbers[j[nearest]]).all()
    radii = covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]]
    assert (distances / radii).min() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(("one", "other"), [("NaCl", "ClNa"), ("MgO", "O4Mg4"), ("Si", "Si8")])
def test_find_prototype_ignores_order_and_multiplicity_of_elements(one: str, other: str) -> None:
    assert find_prototype(one) == find_prototype(other)


@pytest.mark.parametrize("formula", ["H", "N2", "O2", "Cu3Au", "H2O", "Se", "U", "Na2Cl", "Xx"])
def test_find_prototype_of_unknown_composition_names_seeds_files(formula: str) -> None:
    with pytest.raises(ValueError, match=rf"'{formula}'.*seeds\.files"):
        find_prototype(formula)


@pytest.mark.parametrize(
    ("formula", "structure", "group", "n_atoms"),
    [
        ("Po", "sc", 221, 1),
        ("Ni", "fcc", 225, 4),
        ("W", "bcc", 229, 2),
        ("Ti", "hcp", 194, 2),
        ("Ge", "diamond", 227, 8),
        ("TiN", "rocksalt", 225, 8),
        ("BN", "zincblende", 216, 8),
        ("ZnO", "wurtzite", 186, 4),
        ("CsI", "cesiumchloride", 221, 2),
        ("F2Ca", "fluorite", 225, 12),
        ("TiO2", "rutile", 136, 6),
        ("SrTiO3", "perovskite", 221, 5),
    ],
)
def test_find_prototype_by_name(formula: str, structure: str, group: int, n_atoms: int) -> None:
    crystal = find_prototype(formula, structure, 6.5)
    assert len(crystal) == n_atoms
    assert crystal.symbols.formula.reduce()[0].count() == Formula(formula).count()
    cell = (crystal.cell.array, crystal.get_scaled_positions(), crystal.numbers)
    assert spglib.get_symmetry_dataset(cell, symprec=1e-4).number == group
    assert crystal.pbc.all()
    assert set(crystal.arrays) == {"numbers", "positions"}
    assert crystal.cell.lengths()[0] == pytest.approx(6.5)


def test_perovskite_has_the_larger_cation_at_the_corner() -> None:
    for formula in ("SrTiO3", "TiSrO3"):
        crystal = find_prototype(formula, "perovskite", 3.905)
        assert crystal.get_distances(0, [1, 2, 3, 4], mic=True).argmax() == 0
        assert crystal.get_chemical_symbols()[0] == "Sr"


@pytest.mark.parametrize(("formula", "structure"), [("Fe2O3", "rocksalt"), ("NaCl", "fcc")])
def test_find_prototype_refuses_a_formula_of_another_stoichiometry(
    formula: str, structure: str
) -> None:
    with pytest.raises(ValueError, match=rf"{structure} needs.*'{formula}'.*seeds\.prototype"):
        find_prototype(formula, structure, 5.0)
