from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_assets.campaign import DescriptorSettings
from mlip_assets.descriptors import (
    DescriptorMatrix,
    describe_trajectory,
    descriptor_schema,
    n_soap_features,
    soap_power_spectrum,
)
from mlip_assets.progress import Progress

SETTINGS = DescriptorSettings(r_cut=3.5, n_max=3, l_max=2)

FRAMES = pa.schema(
    [
        ("frame_id", pa.int64()),
        ("positions", pa.list_(pa.float32())),
        ("numbers", pa.list_(pa.uint8())),
        ("cell", pa.list_(pa.float64(), 9)),
        ("pbc", pa.list_(pa.bool_(), 3)),
    ]
)


class Frames:
    """A trajectory in memory; ``break_after`` frames it fails, as a lost disk would."""

    def __init__(self, atoms: list[Atoms], break_after: int | None = None) -> None:
        self.atoms, self.break_after = atoms, break_after

    def iter_batches(self, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
        for start in range(0, len(self.atoms), batch_size):
            if self.break_after is not None and start >= self.break_after:
                raise OSError("disk lost")
            part = self.atoms[start : start + batch_size]
            batch = pa.RecordBatch.from_pydict(
                {
                    "frame_id": [100 + start + i for i in range(len(part))],
                    "positions": [a.positions.ravel().tolist() for a in part],
                    "numbers": [a.numbers.tolist() for a in part],
                    "cell": [a.cell[:].ravel().tolist() for a in part],
                    "pbc": [a.pbc.tolist() for a in part],
                },
                schema=FRAMES,
            )
            yield batch.select(list(columns))


def mixed_frames(n_frames: int) -> list[Atoms]:
    """Runs of crystals, vacancies and clusters of one or two elements, all shaken."""
    rng = np.random.default_rng(0)
    crystal = bulk("SiC", "zincblende", a=4.36, cubic=True)
    vacancy = crystal.copy()
    del vacancy[0]
    cluster = Atoms("Si3C", rng.uniform(0, 4, (4, 3)))
    silicon = bulk("Si")
    kinds = [crystal, vacancy, cluster, silicon]
    frames = []
    for frame in range(n_frames):
        atoms = kinds[(frame // 3) % 4].copy()
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        frames.append(atoms)
    return frames


def one_by_one(frames: list[Atoms]) -> np.ndarray:
    return np.concatenate(
        [
            soap_power_spectrum(
                a.positions.astype(np.float32),
                a.cell[:],
                a.pbc,
                a.numbers,
                species=["C", "Si"],
                **SETTINGS.model_dump(exclude={"engine"}),
            )
            for a in frames
        ]
    )


def test_frames_of_any_size_are_described_in_order(tmp_path: Path) -> None:
    frames = mixed_frames(29)
    matrix = describe_trajectory(
        Frames(frames), SETTINGS, ["Si", "C"], tmp_path / "d.parquet", batch_size=8
    )
    ids, descriptors = matrix.to_numpy()
    assert ids.tolist() == list(range(100, 129))
    assert descriptors.dtype == np.float32
    wanted = one_by_one(frames)
    assert np.abs(descriptors - wanted).max() < 1e-6 * np.abs(wanted).max()


def test_handle_knows_its_shape_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    matrix = describe_trajectory(Frames(mixed_frames(7)), SETTINGS, ["Si", "C"], path)
    assert (matrix.n_frames, matrix.n_features) == (7, n_soap_features(2, 3, 2))
    assert matrix.settings == {**SETTINGS.model_dump(), "species": ["C", "Si"]}
    stored, wanted = pq.read_schema(path), descriptor_schema(matrix.n_features, matrix.settings)
    assert stored.equals(wanted)
    assert stored.metadata == wanted.metadata


def test_batches_cover_everything_once_and_row_groups_stay_small(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(10_000, 6)).astype(np.float32)
    schema = descriptor_schema(6, {"r_cut": 5.0})
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 6)
    pq.write_table(
        pa.table([pa.array(np.arange(10_000)), lists], schema=schema), path, row_group_size=4096
    )
    matrix = DescriptorMatrix(path)
    batches = list(matrix.iter_batches(300))
    assert max(len(ids) for ids, _ in batches) <= 300
    assert np.array_equal(np.concatenate([ids for ids, _ in batches]), np.arange(10_000))
    assert np.array_equal(np.concatenate([values for _, values in batches]), rows)
    assert np.array_equal(matrix.to_numpy()[1], rows)


def test_many_small_batches_make_full_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    settings = DescriptorSettings(r_cut=1.1, n_max=1, l_max=0)
    describe_trajectory(Frames([Atoms("Ar")] * 5000), settings, ["Ar"], path, batch_size=1500)
    metadata = pq.ParquetFile(path).metadata
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sum(sizes) == 5000
    assert max(sizes[:-1]) >= 4096 > sizes[-1]
    column = metadata.row_group(0).column(1)
    assert column.compression == "ZSTD"
    assert not column.has_dictionary_page


def test_no_frames_make_an_empty_matrix(tmp_path: Path) -> None:
    matrix = describe_trajectory(Frames([]), SETTINGS, ["Si"], tmp_path / "d.parquet")
    ids, descriptors = matrix.to_numpy()
    assert ids.shape == (0,)
    assert descriptors.shape == (0, n_soap_features(1, 3, 2))


def test_interrupted_writing_leaves_the_earlier_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    describe_trajectory(Frames(mixed_frames(4)), SETTINGS, ["Si", "C"], path)
    with pytest.raises(OSError, match="disk lost"):
        describe_trajectory(
            Frames(mixed_frames(9), break_after=4), SETTINGS, ["Si", "C"], path, batch_size=2
        )
    assert DescriptorMatrix(path).n_frames == 4
    assert [file.name for file in tmp_path.iterdir()] == ["d.parquet"]


def test_a_bad_frame_is_named(tmp_path: Path) -> None:
    frames = mixed_frames(3)
    frames[1].positions[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"frames 100 to 102.*frame 1 holds NaN"):
        describe_trajectory(Frames(frames), SETTINGS, ["Si", "C"], tmp_path / "d.parquet")
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        describe_trajectory(
            Frames(mixed_frames(6)),
            SETTINGS,
            ["Si", "C"],
            tmp_path / "d.parquet",
            progress=Progress("SOAP", 6, "frames"),
            batch_size=4,
        )
    assert "SOAP: 6/6 frames (100 %)" in caplog.text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"frame_id": [1]}, "'descriptor' must be a fixed-size list of float32, not null"),
        ({"frame_id": [1], "descriptor": [[1.0]]}, "'descriptor' must be.*not list"),
        ({"descriptor": [[1.0]]}, "'frame_id' must be int64, not None"),
        (
            {
                "frame_id": [1],
                "descriptor": pa.FixedSizeListArray.from_arrays(pa.array([1.0], pa.float32()), 1),
            },
            "hyper-parameters are missing",
        ),
    ],
)
def test_another_table_is_refused(tmp_path: Path, table: dict[str, list], message: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=f"other.parquet: .*{message}"):
        _ = DescriptorMatrix(tmp_path / "other.parquet").n_frames
