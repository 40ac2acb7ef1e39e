"""The frame table: columns, units and frame identifiers."""

from __future__ import annotations

import pyarrow as pa

#: Largest number of walkers per round of a campaign.
WALKERS_PER_ROUND = 100_000
#: ``frame_id = walker number * FRAME_ID_STRIDE + step``: readable, and below 2**53, the largest
#: exact integer of JavaScript.
FRAME_ID_STRIDE = 1_000_000_000
#: Largest number of rounds per campaign, which keeps identifiers below 2**53.
MAX_ROUNDS = 90
#: Frames per row group, the unit of random access.
ROW_GROUP_SIZE = 100


def _column(name: str, kind: pa.DataType, unit: str = "") -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"unit": unit} if unit else None)


#: One row per frame. Units are in the field metadata; rows of ``cell`` are the lattice vectors.
FRAME_SCHEMA = pa.schema(
    [
        _column("frame_id", pa.int64()),
        _column("walker", pa.string()),
        _column("step", pa.int64()),
        _column("time_fs", pa.float64(), "fs"),
        _column("temperature_K", pa.float64(), "K"),
        _column("target_temperature_K", pa.float64(), "K"),
        pa.field("pressure_GPa", pa.float64(), metadata={"unit": "GPa"}),
        _column("energy_eV", pa.float64(), "eV"),
        pa.field("force_spread_eV_per_A", pa.float64(), metadata={"unit": "eV/Å"}),
        _column("cell", pa.list_(pa.float64(), 9), "Å"),
        _column("pbc", pa.list_(pa.bool_(), 3)),
        _column("numbers", pa.list_(pa.uint8())),
        _column("positions", pa.list_(pa.float32()), "Å"),
        _column("forces", pa.list_(pa.float32()), "eV/Å"),
    ]
)
#: Columns with one value per frame.
SCALAR_COLUMNS = tuple(FRAME_SCHEMA.names[:9])


def round_of(frame_id: int) -> int:
    """The round of its campaign that a frame belongs to."""
    return frame_id // (WALKERS_PER_ROUND * FRAME_ID_STRIDE)


def require_schema(found: pa.Schema, wanted: pa.Schema, where: str) -> None:
    """Raise ValueError naming the first column that is missing or of another type."""
    for column in wanted:
        if column.name not in found.names:
            raise ValueError(f"{where}: column '{column.name}' is missing; found {found.names}")
        kind = found.field(column.name).type
        if kind != column.type:
            raise ValueError(f"{where}: column '{column.name}' is {kind}, expected {column.type}")
