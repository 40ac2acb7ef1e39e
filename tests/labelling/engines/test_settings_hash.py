"""Settings hashes and label keys are those of stored ledgers: literal values, never to be changed."""

from __future__ import annotations

from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk

from mlip_assets.labelling import (
    DftEngine,
    EmtEngine,
    EspressoEngine,
    GpawEngine,
    VaspEngine,
    isolated_atom,
)
from mlip_assets.labelling.engines.engine import hash_of
from mlip_assets.labelling.structure import label_key

SETTINGS: dict[str, Any] = {
    "xc": "PBE",
    "cutoff_eV": 500.0,
    "k_spacing_per_A": 0.2,
    "smearing_eV": 0.1,
    "energy_convergence_eV": 1e-5,
}
FILES = {"Si": ("/missing/Si.upf", "a1" * 32), "C": ("/missing/C.upf", "b2" * 32)}
IRON_SLAB = Atoms("Fe", cell=[2.87] * 3, pbc=[True, True, False])

#: Engine, hash of its settings, and keys of Si2, of the silicon atom and of ``IRON_SLAB``.
STORED = {
    "gpaw": (
        GpawEngine(**SETTINGS),
        "7967a5f9ffe9406d7a188008c7a4e16b93cfb6b4559e9c410874f3973bb21bfe",
        "b32eb77529e4b8a21e472976631c510556b083e7316335405c63fc550ed56670",
        "5adaf82755ae64223fe792e8883ab4971c2a06fba9e32dff2b55db5445624dc4",
        "ca9a13fb7cfd1d838c861f9e55f228ff8d3e990425af09f0867c84e14b33ab72",
    ),
    "gpaw, other settings": (
        GpawEngine(**(SETTINGS | {"xc": "LDA"}), spin="on", charge=1.0, vacuum_A=6.0),
        "3ebf01ca92a72465870db52308ef1233ab43544fa6a9566c8bc4593d71b07e34",
        "27d71228fa47ec18edb4ed1f824286f1a44e3c4558f9bf8e915b9fc1dc79e4b9",
        "067a66a42a3db21bcf87f01edfb2343c0dba887bd28cff3525255b7182d1fabb",
        "d8f90c3b08853076c7201f8e1f3c82d034e66b71576fdc5eaf49d5f67992b821",
    ),
    "espresso": (
        EspressoEngine(**SETTINGS, pseudopotentials=FILES, command="mpirun -np 4 pw.x"),
        "dc5d2749f168ff9c8a24b0ba3245398bd0d0f4791dafe81a1aa4619341f2ef78",
        "96810051a8e7eba373483fa77e2659796a315aa3377df135d671637f13f840fc",
        "bd1c067662043dae22502aae7a68d4df00b6ddab2cf281ebdfd592fd83939b7a",
        "3d5c6cb99fa7aed65461902eb2884a159a8aaffd9c7035512b7e7b73561c371e",
    ),
    "vasp": (
        VaspEngine(**SETTINGS, pseudopotentials=FILES),
        "dc5d2749f168ff9c8a24b0ba3245398bd0d0f4791dafe81a1aa4619341f2ef78",
        "6df00072c225d6196f1f8f07daa8912616fff1e17005c593da6fec1922d6ef85",
        "d57e22bb0a2f29a7f4ebcc2cee9dcc199baff0a865a5a4dbe1b2a0da4e74712d",
        "96c6d7f71c6bddb6765f9e089eedb7569342ee5a7cd6c962ee626e47bcdc1863",
    ),
    "emt": (
        EmtEngine(),
        "b16187c9ef6cf72a667e92be896c20c4d73c529e9f737c7326ca79992f019470",
        "bf33be06c72a8da088b64740e55e0085380c739372300ce816fb36748582ca9f",
        "89ecf7b7065981525eef37fa11502235e4772efd51c38847b9c84d6f15cbde5f",
        "27373dee3b42fc5568ebbe9381a54e9e80cee3bffbce77812471703cc1f18999",
    ),
}


@pytest.mark.parametrize(("engine", "stored_hash"), [v[:2] for v in STORED.values()], ids=STORED)
def test_settings_hash_is_the_stored_one(engine: DftEngine, stored_hash: str) -> None:
    assert hash_of(engine) == stored_hash


@pytest.mark.parametrize("name", STORED)
def test_label_keys_are_the_stored_ones(name: str) -> None:
    engine, _, *stored_keys = STORED[name]
    frames = [bulk("Si"), isolated_atom("Si"), IRON_SLAB]
    keys = [label_key(engine.prepare(a), engine.name, hash_of(engine)) for a in frames]
    assert keys == stored_keys


def test_settings_hash_of_the_teacher_is_the_stored_one() -> None:
    pytest.importorskip("chgnet", reason="the extra 'chgnet' is not installed")
    from mlip_assets.labelling.engines.teacher import TeacherEngine

    physics = TeacherEngine().physics
    assert physics.keys() == {"weights", "cohesive_eV", "farthest_A", "cores"}
    assert hash_of(TeacherEngine()) == (
        "dec88161c6d8f63689e17620d8f37feaf411a3bef90fcc3d63b06e78c1746843"
    )
