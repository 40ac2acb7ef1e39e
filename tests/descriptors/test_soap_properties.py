"""Symmetries of SOAP on random structures, and errors for invalid ones (hypothesis)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mlip_assets.descriptors import soap_power_spectrum

SETTINGS: dict[str, Any] = {"r_cut": 3.0, "n_max": 3, "l_max": 2, "sigma": 0.5}
SPECIES = [6, 14, 29]


def soap(positions: Any, cell: Any, pbc: Any, numbers: Any, **changes: Any) -> np.ndarray:
    arguments = {**SETTINGS, **changes}
    return soap_power_spectrum(positions, cell, pbc, numbers, species=SPECIES, **arguments)[0]


@st.composite
def structures(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One to six atoms with a minimum distance, in a cell of moderate skew."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_atoms = draw(st.integers(1, 6))
    lengths = np.array(draw(st.tuples(*[st.floats(2.5, 9.0)] * 3)))
    cell = lengths[:, None] * (np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3)))
    grid = rng.permutation(np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3))
    fractions = (grid[:n_atoms] + rng.uniform(0.3, 0.7, (n_atoms, 3))) / 2
    pbc = np.array(draw(st.tuples(*[st.booleans()] * 3)))
    return fractions @ cell, cell, pbc, rng.choice(SPECIES, n_atoms)


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    assert np.abs(one - other).max() <= 1e-7 * np.abs(other).max()


@settings(max_examples=200, deadline=None)
@given(structures(), st.integers(0, 2**32 - 1))
def test_soap_is_invariant_under_rotation_translation_permutation_wrapping(
    structure: Any, seed: int
) -> None:
    positions, cell, pbc, numbers = structure
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(random_state=seed % 2**31).as_matrix()
    order = rng.permutation(len(numbers))
    jumps = rng.integers(-3, 4, positions.shape) * pbc @ cell
    moved = (positions + jumps + rng.uniform(-20, 20, 3))[order] @ rotation.T
    assert_same(
        soap(moved, cell @ rotation.T, pbc, numbers[order]), soap(positions, cell, pbc, numbers)
    )


@settings(max_examples=200, deadline=None)
@given(structures(), st.tuples(*[st.integers(1, 2)] * 3), st.integers(0, 5))
def test_soap_does_not_depend_on_choice_of_cell(structure: Any, repeats: Any, shear: int) -> None:
    positions, cell, pbc, numbers = structure
    times = np.where(pbc, repeats, 1)
    steps = np.stack(np.meshgrid(*[np.arange(n) for n in times], indexing="ij"), -1).reshape(-1, 3)
    supercell = cell * times[:, None]
    # another basis of the same lattice: one vector plus another
    first, second = [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)][shear]
    if pbc[first] and pbc[second]:
        supercell[first] += supercell[second]
    everywhere = (positions + (steps @ cell)[:, None]).reshape(-1, 3)
    assert_same(
        soap(everywhere, supercell, pbc, np.tile(numbers, len(steps))),
        soap(positions, cell, pbc, numbers),
    )


@settings(max_examples=100, deadline=None)
@given(structures())
def test_average_equals_mean_over_atoms(structure: Any) -> None:
    positions, cell, pbc, numbers = structure
    each = soap(positions, cell, pbc, numbers, average="off")
    assert_same(each.mean(axis=0), soap(positions, cell, pbc, numbers))
    by_species = soap(positions, cell, pbc, numbers, average="species").reshape(3, -1)
    for row, number in zip(by_species, SPECIES, strict=True):
        members = each[numbers == number]
        assert_same(row, members.mean(axis=0) if len(members) else 0 * row)


anything = st.floats(allow_nan=True, allow_infinity=True, width=64)
coordinate = st.one_of(st.floats(-12, 12), st.sampled_from([0.0, 1e-9, 5.0, -5.0, 1e6]), anything)


@pytest.mark.slow
@settings(max_examples=2500, deadline=None)
@given(
    positions=st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=0, max_size=8),
    cell=st.one_of(
        st.lists(coordinate, min_size=9, max_size=9),
        st.floats(0.3, 20.0).map(lambda a: [a, 0, 0, 0, a, 0, 0, 0, a]),
    ),
    pbc=st.lists(st.booleans(), min_size=3, max_size=3),
    number=st.sampled_from([*SPECIES, 1]),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_soap_of_any_input_is_finite_or_raises_value_error(
    positions: Any, cell: Any, pbc: Any, number: int, dtype: Any
) -> None:
    """The result is finite, or a ValueError begins with the name of the invalid argument."""
    message = ""
    try:
        features = soap(
            np.reshape(positions, (-1, 3)),
            np.reshape(cell, (3, 3)),
            pbc,
            np.full(len(positions), number),
            dtype=dtype,
        )
    except ValueError as error:
        message = str(error)
    if message:
        assert message.split(":")[0] in {"positions", "cells", "numbers"}
    else:
        assert np.isfinite(features).all()
        assert len(positions) > 0
