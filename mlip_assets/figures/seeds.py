"""The structures exploration starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from mlip_assets.figures.canvas import canvas, png, table

if TYPE_CHECKING:
    from ase import Atoms


def seed_table(structures: Sequence[Atoms]) -> dg.MetadataValue:
    """Name, kind, formula and density of every seed."""
    return table(
        {
            "seed": atoms.info["seed_name"],
            "kind": atoms.info["seed_kind"],
            "formula": atoms.get_chemical_formula(),
            "atoms": len(atoms),
            "periodic": bool(atoms.pbc.all()),
            "volume_A3_per_atom": atoms.get_volume() / len(atoms),
        }
        for atoms in structures
    )


def seed_pictures(structures: Sequence[Atoms]) -> bytes:
    """Every seed, seen along a slightly tilted axis."""
    from ase.visualize.plot import plot_atoms

    shown = structures[:12]
    columns = min(len(shown), 4)
    figure, axes = canvas(-(-len(shown) // columns), columns, 2.6, 2.6)
    for axis in axes:
        axis.set_axis_off()
    for axis, atoms in zip(axes, shown, strict=False):
        plot_atoms(atoms, axis, rotation="10x,-15y", radii=0.4)
        axis.set_title(atoms.info["seed_name"], fontsize=9)
    return png(figure)
