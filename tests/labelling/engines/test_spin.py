"""Initial magnetic moments by the setting ``spin``."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import bulk

from mlip_assets.labelling import isolated_atom
from mlip_assets.labelling.engines.spin import with_spin


def iron() -> Atoms:
    return Atoms("Fe", cell=[2.87, 2.87, 2.87], pbc=True)


def moments(atoms: Atoms, spin: str) -> list[float]:
    return with_spin(atoms, spin).get_initial_magnetic_moments().tolist()  # type: ignore[arg-type]


def test_spin_is_on_for_magnetic_elements_or_by_setting() -> None:
    assert moments(iron(), "auto") == [4.0]
    assert moments(bulk("Si"), "auto") == [0.0, 0.0]
    assert moments(bulk("Si"), "on") == [2.0, 2.0]
    assert moments(bulk("Fe"), "off") == [0.0]  # ASE gives it 2.3


def test_moments_of_the_frame_are_kept() -> None:
    antiferromagnet = bulk("Cr", cubic=True)
    antiferromagnet.set_initial_magnetic_moments([1.0, -1.0])
    assert moments(antiferromagnet, "auto") == [1.0, -1.0]
    assert moments(antiferromagnet, "on") == [1.0, -1.0]
    assert moments(antiferromagnet, "off") == [0.0, 0.0]


@pytest.mark.parametrize("spin", ["auto", "on", "off"])
def test_isolated_atom_keeps_its_moment(spin: str) -> None:
    assert moments(isolated_atom("O"), spin) == [2.0]
    assert moments(isolated_atom("O", polarised=False), spin) == [0.0]


def test_with_spin_does_not_change_its_argument() -> None:
    frame = iron()
    with_spin(frame, "on")
    assert not frame.get_initial_magnetic_moments().any()
