"""Lists of structures as extended XYZ, which most atomistic programs read."""

from __future__ import annotations

from typing import Any, ClassVar

import dagster as dg
import numpy as np
from ase import Atoms
from ase.io import read, write
from upath import UPath

from io_managers.base import TypedIOManager
from mlip_assets.common.files import local_copy, write_atomically


class ExtxyzIOManager(TypedIOManager):
    """``list[Atoms]``; the metadata key ``required_info`` of the asset lists the ``info`` keys."""

    value_type: ClassVar[type] = list
    suffix: ClassVar[str] = ".extxyz"

    def write(self, value: list[Atoms], path: UPath, contract: dict[str, Any]) -> None:
        """Check all structures, then write them.

        Raises
        ------
        TypeError, ValueError
            A structure is not ``Atoms``, lacks a required ``info`` key, or has positions that are not
            finite; the message names the first one.
        """
        for index, atoms in enumerate(value):
            if not isinstance(atoms, Atoms):
                raise TypeError(f"structure {index} is a {type(atoms).__name__}, not ase.Atoms")
            for key in contract.get("required_info", ()):
                if key not in atoms.info:
                    raise ValueError(f"structure {index}: info['{key}'] is missing")
            if not np.isfinite(atoms.positions).all():
                raise ValueError(f"structure {index}: positions are not finite")
        with write_atomically(path) as temporary:
            write(temporary, value, format="extxyz", write_results=False)

    def read(self, path: UPath) -> list[Atoms]:
        """Read every structure."""
        with local_copy(path) as local:
            structures = read(local, index=":", format="extxyz")
        assert isinstance(structures, list)
        return structures

    def describe(self, value: list[Atoms], path: UPath) -> dict[str, Any]:
        """Count and size."""
        return {
            "dagster/partition_row_count": len(value),
            "size_bytes": dg.MetadataValue.int(path.stat().st_size),
        }
