from __future__ import annotations

import json
import logging
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_assets.campaign import DescriptorSettings
from mlip_assets.common.progress import Progress, ProgressReport
from mlip_assets.descriptors import (
    DescriptorMatrix,
    compute_descriptors,
    descriptor_schema,
    n_soap_features,
    size_message,
    soap_power_spectrum,
)
from mlip_assets.descriptors import computation as module
from mlip_assets.descriptors.computation import n_features
from mlip_assets.descriptors.matrix import commit, write_part

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
    """A trajectory in memory, with its own batch size.

    It raises an OSError after ``break_after`` frames.
    """

    def __init__(
        self, atoms: list[Atoms], batch: int = 256, break_after: int | None = None
    ) -> None:
        self.atoms, self.batch, self.break_after = atoms, batch, break_after

    def iter_batches(self, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
        size = min(batch_size, self.batch)
        for start in range(0, len(self.atoms), size):
            if self.break_after is not None and start >= self.break_after:
                raise OSError("disk lost")
            part = self.atoms[start : start + size]
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


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight frames per part, so that few frames give several parts."""
    monkeypatch.setattr(module, "_PART_FRAMES", 8)


def mixed_frames(n_frames: int) -> list[Atoms]:
    """Runs of crystals, vacancies and clusters of one or two elements, all with displacements."""
    rng = np.random.default_rng(0)
    crystal = bulk("SiC", "zincblende", a=4.36, cubic=True)
    vacancy = crystal.copy()
    del vacancy[0]
    turned = crystal[::-1]  # the same number of atoms in another order
    cluster = Atoms("Si3C", [[0, 0, 0], [2.3, 0, 0], [0, 2.3, 0], [0, 0, 1.9]])
    silicon = bulk("Si")
    kinds = [crystal, turned, vacancy, cluster, silicon]
    frames = []
    for frame in range(n_frames):
        atoms = kinds[(frame // 3) % 5].copy()
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        frames.append(atoms)
    return frames


def frame_by_frame(frames: list[Atoms], settings: DescriptorSettings = SETTINGS) -> np.ndarray:
    return np.concatenate(
        [
            soap_power_spectrum(
                a.positions.astype(np.float32),
                a.cell[:],
                a.pbc,
                a.numbers,
                species=["C", "Si"],
                **settings.soap_arguments(),
            )
            for a in frames
        ]
    )


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of each part."""
    parts = folder.glob("*.parquet")
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in parts}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"average": "inner"},
        {"average": "species"},
        {"compression": "mu1nu1"},
        {"precision": "float32"},
        {"radial_table": "fine"},
        {"implementation": "dscribe"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("short_parts")
def test_compute_descriptors_of_frames_of_any_size_keeps_order(
    tmp_path: Path, changes: dict
) -> None:
    settings = SETTINGS.model_validate({**SETTINGS.model_dump(), **changes})
    frames = mixed_frames(29)
    matrix = compute_descriptors(Frames(frames), settings, ["Si", "C"], tmp_path / "d")
    ids, descriptors = matrix.to_numpy()
    assert ids.tolist() == list(range(100, 129))
    assert descriptors.dtype == np.float32
    assert descriptors.shape == (29, n_features(settings, 2))
    wanted = frame_by_frame(frames, settings)
    assert np.abs(descriptors - wanted).max() < 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize(("batch", "n_threads"), [(1, 1), (2, 2), (7, 3), (256, 1)])
@pytest.mark.usefixtures("short_parts")
def test_compute_descriptors_bytes_do_not_depend_on_batches_and_threads(
    tmp_path: Path, batch: int, n_threads: int
) -> None:
    frames = mixed_frames(29)
    for name, source, n in (("a", Frames(frames), 2), ("b", Frames(frames, batch), n_threads)):
        compute_descriptors(source, SETTINGS, ["Si", "C"], tmp_path / name, n_threads=n)
    assert len(files(tmp_path / "a")) == 4 + 2  # parts, manifest and lock
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_matrix_has_shape_and_settings(tmp_path: Path) -> None:
    matrix = compute_descriptors(Frames(mixed_frames(7)), SETTINGS, ["Si", "C"], tmp_path)
    assert (matrix.n_frames, matrix.n_features) == (7, n_soap_features(2, 3, 2))
    assert matrix.settings == {**SETTINGS.stored(), "species": ["C", "Si"]}
    (part,) = tmp_path.glob("*.parquet")
    assert matrix.n_bytes == part.stat().st_size
    stored, wanted = pq.read_schema(part), descriptor_schema(matrix.n_features, matrix.settings)
    assert stored.equals(wanted)
    assert stored.metadata == wanted.metadata
    matrix.validate()


@pytest.mark.usefixtures("short_parts")
def test_matrix_folder_is_a_parquet_dataset(tmp_path: Path) -> None:
    matrix = compute_descriptors(Frames(mixed_frames(29)), SETTINGS, ["Si", "C"], tmp_path)
    table = pq.read_table(tmp_path)
    assert table["frame_id"].to_pylist() == matrix.to_numpy()[0].tolist()


def test_iter_batches_returns_each_row_once_in_small_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(10_000, 6)).astype(np.float32)
    schema, parts = descriptor_schema(6, {"r_cut": 5.0}), {}
    for start in range(0, 10_000, 4096):
        ids = np.arange(start, min(start + 4096, 10_000))
        parts[f"part-{start}.parquet"] = len(ids)
        write_part(tmp_path / f"part-{start}.parquet", ids, rows[ids], schema)
    matrix = commit(tmp_path, schema, parts)
    batches = list(matrix.iter_batches(300))
    assert max(len(ids) for ids, _ in batches) <= 300
    assert np.array_equal(np.concatenate([ids for ids, _ in batches]), np.arange(10_000))
    assert np.array_equal(np.concatenate([values for _, values in batches]), rows)
    assert np.array_equal(matrix.to_numpy()[1], rows)


@pytest.mark.slow
def test_compute_descriptors_merges_small_batches_into_full_row_groups(tmp_path: Path) -> None:
    settings = DescriptorSettings(r_cut=1.1, n_max=1, l_max=0)
    compute_descriptors(Frames([Atoms("Ar")] * 5000, 100), settings, ["Ar"], tmp_path)
    first, last = (pq.ParquetFile(part).metadata for part in sorted(tmp_path.glob("*.parquet")))
    assert [(m.num_row_groups, m.num_rows) for m in (first, last)] == [(1, 4096), (1, 904)]
    column = first.row_group(0).column(1)
    assert column.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in column.encodings
    assert not column.has_dictionary_page


def test_parts_of_large_frames_and_long_descriptors_are_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART_ATOMS", 20)
    monkeypatch.setattr(module, "_CALL_ATOMS", 9)
    frames = [bulk("Si", cubic=True)] * 7 + [bulk("Si", cubic=True).repeat((3, 1, 1))] * 2
    matrix = compute_descriptors(Frames(frames, 5), SETTINGS, ["Si"], tmp_path / "atoms")
    sizes = [len(ids) for ids, _ in matrix.iter_batches()]
    assert sizes == [2, 2, 2, 1, 1, 1]
    monkeypatch.undo()
    monkeypatch.setattr(module, "_PART_BYTES", 3 * 4 * matrix.n_features)
    longer = compute_descriptors(Frames(frames, 5), SETTINGS, ["Si"], tmp_path / "bytes")
    assert [len(ids) for ids, _ in longer.iter_batches()] == [3, 3, 3]
    assert np.allclose(longer.to_numpy()[1], matrix.to_numpy()[1], rtol=1e-6)


def test_compute_descriptors_of_no_frames_gives_empty_matrix(tmp_path: Path) -> None:
    matrix = compute_descriptors(Frames([]), SETTINGS, ["Si"], tmp_path / "d")
    ids, descriptors = matrix.to_numpy()
    assert ids.shape == (0,)
    assert descriptors.shape == (0, n_soap_features(1, 3, 2))


@pytest.mark.parametrize("root", ["local", "memory"])
@pytest.mark.usefixtures("short_parts")
def test_compute_descriptors_resumes_to_same_bytes(tmp_path: Path, root: str) -> None:
    from upath import UPath

    folder = tmp_path / "d" if root == "local" else UPath("memory://interrupted/d")
    frames = mixed_frames(29)
    with pytest.raises(OSError, match="disk lost"):
        compute_descriptors(Frames(frames, 4, break_after=20), SETTINGS, ["Si", "C"], folder)
    with pytest.raises(FileNotFoundError, match="are incomplete; compute them again"):
        DescriptorMatrix(folder).to_numpy()
    before = {file.name: file.stat().st_mtime for file in folder.glob("*.parquet")}
    assert len(before) == 2
    reports: list[ProgressReport] = []
    progress = Progress("SOAP", 29, "frames", on_progress=reports.append, every_s=0)
    compute_descriptors(Frames(frames), SETTINGS, ["Si", "C"], folder, progress=progress)
    assert (progress.already_done, progress.done) == (16, 29)
    assert reports[1].rate_per_s == 0 < reports[2].rate_per_s
    compute_descriptors(Frames(frames), SETTINGS, ["Si", "C"], tmp_path / "uninterrupted")
    for file in (tmp_path / "uninterrupted").glob("[!.]*"):
        assert (folder / file.name).read_bytes() == file.read_bytes(), file.name
    assert before.items() <= {f.name: f.stat().st_mtime for f in folder.glob("*.parquet")}.items()


@pytest.mark.usefixtures("short_parts")
def test_compute_descriptors_recomputes_only_changed_parts(tmp_path: Path) -> None:
    frames = mixed_frames(29)

    def compute(frames: list[Atoms], settings: DescriptorSettings = SETTINGS) -> dict:
        compute_descriptors(Frames(frames), settings, ["Si", "C"], tmp_path)
        return written(tmp_path)

    first = compute(frames)
    assert compute(frames) == first
    frames[10].positions[0, 0] += 0.01
    moved = compute(frames)
    assert len(moved) == 4
    assert {name[:10] for name in moved.keys() - first.keys()} == {"part-00001"}
    assert len(first.items() & moved.items()) == 3
    shorter = compute(frames[:24])
    assert shorter.items() == dict(sorted(moved.items())[:3]).items()
    other = compute(frames[:24], SETTINGS.model_copy(update={"sigma": 0.4}))
    assert not other.keys() & shorter.keys()
    assert len(other) == 3


def test_earlier_matrix_is_readable_until_new_one_is_complete(tmp_path: Path) -> None:
    compute_descriptors(Frames(mixed_frames(4)), SETTINGS, ["Si", "C"], tmp_path)
    with pytest.raises(OSError, match="disk lost"):
        compute_descriptors(Frames(mixed_frames(9), 2, 4), SETTINGS, ["Si", "C"], tmp_path)
    assert DescriptorMatrix(tmp_path).to_numpy()[1].shape[0] == 4


def test_parts_of_another_code_version_are_not_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_descriptors(Frames(mixed_frames(4)), SETTINGS, ["Si", "C"], tmp_path)
    first = written(tmp_path)
    monkeypatch.setattr(module, "_code_digest", lambda engine: b"other")
    compute_descriptors(Frames(mixed_frames(4)), SETTINGS, ["Si", "C"], tmp_path)
    assert not written(tmp_path).keys() & first.keys()


def test_compute_descriptors_error_gives_ids_of_invalid_frames(tmp_path: Path) -> None:
    frames = mixed_frames(3)
    frames[1].positions[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"frames 100 to 102.*frame 1 contains NaN"):
        compute_descriptors(Frames(frames), SETTINGS, ["Si", "C"], tmp_path)
    with pytest.raises(FileNotFoundError, match="are incomplete"):
        DescriptorMatrix(tmp_path).validate()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": [[14], [14]]}, "frame 7 has 1 numbers and 6 coordinates"),
        ({"numbers": [[14, 14], []]}, "frame 8 has 0 numbers"),
        ({"numbers": [[14, 14], None]}, "'numbers' contains nulls"),
    ],
)
def test_compute_descriptors_rejects_inconsistent_columns(
    tmp_path: Path, changes: dict, message: str
) -> None:
    columns = {
        "frame_id": [7, 8],
        "positions": [[0, 0, 0, 0, 0, 2.0]] * 2,
        "numbers": [[14, 14]] * 2,
        "cell": [[0.0] * 9] * 2,
        "pbc": [[False] * 3] * 2,
    }

    class Columns:
        def iter_batches(self, wanted: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
            yield pa.RecordBatch.from_pydict({**columns, **changes}, FRAMES).select(list(wanted))

    with pytest.raises(ValueError, match=message):
        compute_descriptors(Columns(), SETTINGS, ["Si"], tmp_path)


def test_compute_descriptors_logs_size_and_progress(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress("SOAP", 6, "frames")
    with caplog.at_level(logging.INFO):
        compute_descriptors(
            Frames(mixed_frames(6)), SETTINGS, ["Si", "C"], tmp_path, progress=progress
        )
    assert "SOAP: 63 features per frame" in caplog.text
    assert "SOAP: 6/6 frames (100 %)" in caplog.text


def test_compute_descriptors_memory_does_not_grow_with_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART_FRAMES", 512)
    (batch,) = Frames([Atoms("Si")] * 256).iter_batches(FRAMES.names, 256)

    class Endless:
        def iter_batches(self, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
            for _ in range(200):
                yield batch.select(list(columns))

    peaks: list[int] = []

    def look(_: ProgressReport) -> None:
        peaks.append(tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes())
        tracemalloc.reset_peak()

    progress = Progress("SOAP", 200 * 256, "frames", every_s=0, on_progress=look)
    tracemalloc.start()
    try:
        matrix = compute_descriptors(Endless(), SETTINGS, ["Si", "C"], tmp_path, progress=progress)
    finally:
        tracemalloc.stop()
    assert len(peaks) == 100
    assert max(peaks[50:]) < max(peaks[1:50]) + 100_000
    assert max(peaks[1:]) < matrix.n_frames * matrix.n_features * 4 / 5


def test_size_message_recommends_compression_of_long_descriptors() -> None:
    settings = DescriptorSettings(n_max=10, l_max=9)
    message = size_message(settings, 4)
    assert message.startswith("8200 features per frame; descriptors.compression reduces them: ")
    assert f"mu1nu1 {n_soap_features(4, 10, 9, compression='mu1nu1')}" in message
    assert size_message(DescriptorSettings(), 1) == "252 features per frame"
    compressed = settings.model_copy(update={"compression": "mu2"})
    assert ";" not in size_message(compressed, 4)


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
def test_matrix_rejects_other_tables(tmp_path: Path, table: dict[str, list], message: str) -> None:
    matrix = commit(tmp_path, descriptor_schema(1, {}), {"other.parquet": 1})
    pq.write_table(pa.table(table), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=f"other.parquet: .*{message}"):
        list(matrix.iter_batches())


@pytest.mark.usefixtures("short_parts")
def test_validate_rejects_modified_folder(tmp_path: Path) -> None:
    matrix = compute_descriptors(Frames(mixed_frames(9)), SETTINGS, ["Si", "C"], tmp_path)
    first, second = sorted(tmp_path.glob("*.parquet"))
    first.write_bytes(second.read_bytes())
    with pytest.raises(ValueError, match="contains 1 frames, but the manifest 8"):
        matrix.validate()
    first.unlink()
    with pytest.raises(ValueError, match=r"part-00000.* is missing"):
        matrix.validate()
    manifest = json.loads((tmp_path / "_manifest.json").read_text())
    manifest["settings"]["sigma"] = 0.3
    (tmp_path / "_manifest.json").write_text(
        json.dumps({**manifest, "parts": {second.name: 1}}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="but the manifest has 63 features"):
        matrix.validate()
