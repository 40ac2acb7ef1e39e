"""Descriptors of a trajectory: computed part by part, and resumed after an interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.metadata import version
from logging import getLogger
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from ase.data import atomic_numbers
from numpy.typing import NDArray
from upath import UPath

from mlip_assets.campaign import DescriptorSettings
from mlip_assets.common.files import AnyPath, as_path, is_local, locked
from mlip_assets.common.progress import Progress
from mlip_assets.descriptors.frame_runs import FrameRun, FrameSource, parts_of
from mlip_assets.descriptors.frames import n_soap_features
from mlip_assets.descriptors.matrix import (
    SETTINGS_KEY,
    DescriptorMatrix,
    commit,
    descriptor_schema,
    write_part,
)
from mlip_assets.descriptors.soap import soap_power_spectrum

_log = getLogger(__name__)
_T = TypeVar("_T")

# Memory is a few times these, whatever the number of frames. They affect the bytes of the result,
# because the kernel shares neighbour lists within one call.
_PART_FRAMES = 4096
_PART_ATOMS = 1 << 21
_PART_BYTES = 1 << 26
_CALL_ATOMS = 1 << 18

#: Above this number of features, the message on the size recommends a compression.
_LARGE = 4000


def n_features(settings: DescriptorSettings, n_species: int) -> int:
    """Length of the descriptor of one frame."""
    return n_soap_features(
        n_species,
        settings.n_max,
        settings.l_max,
        compression=settings.compression,
        average=settings.average,
    )


def size_message(settings: DescriptorSettings, n_species: int) -> str:
    """Text with the length of a descriptor and, if that is large, the compressions that reduce it."""
    size = n_features(settings, n_species)
    message = f"{size} features per frame"
    if size <= _LARGE or settings.compression != "off":
        return message
    compressed = {
        name: n_features(settings.model_copy(update={"compression": name}), n_species)
        for name in ("mu2", "mu1nu1", "crossover")
    }
    choices = ", ".join(f"{name} {length}" for name, length in compressed.items() if length < size)
    return f"{message}; descriptors.compression reduces them: {choices}"


def compute_descriptors(
    frames: FrameSource,
    settings: DescriptorSettings,
    species: Sequence[str],
    path: AnyPath,
    *,
    progress: Progress | None = None,
    n_threads: int = 1,
) -> DescriptorMatrix:
    """Compute the descriptors of all frames part by part; parts that exist are not computed again.

    A part is one row group of up to 4096 frames, fewer if frames or descriptors are large. Its file
    name contains a hash of its frames, the settings and the code: an existing part is kept if it is
    what would be computed. An earlier matrix at ``path`` can be read until the new one is complete.
    The bytes do not depend on the batches of the source, on ``n_threads``, or on interruptions.

    Parameters
    ----------
    frames
        Source of batches with the columns ``frame_id``, ``positions``, ``numbers``, ``cell`` and
        ``pbc`` of the frame table. Frames may differ in size and composition.
    settings
        SOAP hyper-parameters; stored with the matrix, together with ``species``.
    species
        Chemical symbols that the features distinguish.
    path
        Folder of the parts and their manifest, local or any fsspec URL.
    progress
        Counts the frames; frames of existing parts count as done earlier.
    n_threads
        Threads over which the frames are distributed.

    Returns
    -------
    DescriptorMatrix
        Handle on the complete folder; the rows are in the order of the frames.

    Raises
    ------
    ValueError
        A frame that :func:`soap_power_spectrum` refuses, or columns that do not match. The message
        gives its ``frame_id``. The parts before it are kept.

    Examples
    --------
    >>> from mlip_assets import Campaign, compute_descriptors, explore
    >>> campaign = Campaign(
    ...     name="argon",
    ...     composition="Ar",
    ...     seeds={"kinds": ["crystal"], "crystal_atoms": 4},
    ...     exploration={"surrogate": "lennard-jones", "temperatures_K": [40], "n_steps": 40},
    ...     sampling={"n_samples": 2},
    ...     training={"start_from": "scratch"},
    ... )
    >>> trajectory = explore(campaign, "frames")
    >>> matrix = compute_descriptors(
    ...     trajectory, campaign.descriptors, campaign.elements, "descriptors"
    ... )
    >>> frame_ids, descriptors = matrix.to_numpy()
    >>> descriptors.shape == (trajectory.n_frames, matrix.n_features)
    True
    """
    ordered = sorted(set(species), key=lambda symbol: atomic_numbers.get(symbol, 0))
    _log.info("SOAP: %s", size_message(settings, len(ordered)))
    length = n_features(settings, len(ordered))
    schema = descriptor_schema(length, {**settings.stored(), "species": ordered})
    max_frames = max(1, min(_PART_FRAMES, _PART_BYTES // (4 * length)))
    folder = as_path(path)
    hashed = (
        (part, _digest(part, schema, settings.implementation))
        for part in parts_of(frames, max_frames, _PART_ATOMS)
    )
    parts: dict[str, int] = {}
    with _exclusive(folder):
        for index, (part, digest) in enumerate(_read_ahead(hashed)):
            name = f"part-{index:05d}-{digest}.parquet"
            ids = np.concatenate([run.frame_id for run in part])
            parts[name] = len(ids)
            if (folder / name).exists():
                if progress is not None:
                    progress.skip(len(ids))
                continue
            rows = np.empty((len(ids), length), dtype=np.float32)
            start = 0
            for call in _calls(part):
                end = start + len(call)
                rows[start:end] = _spectra(call, settings, ordered, n_threads)
                start = end
                if progress is not None:
                    progress.advance(len(call))
            write_part(folder / name, ids, rows, schema)
        return commit(folder, schema, parts)


def _calls(part: Iterable[FrameRun]) -> Iterator[FrameRun]:
    """The runs of a part, cut into the sizes of one call of the kernel."""
    for run in part:
        max_frames = max(1, _CALL_ATOMS // len(run.numbers))
        for start in range(0, len(run), max_frames):
            yield run[start : start + max_frames]


def _spectra(
    run: FrameRun, settings: DescriptorSettings, species: Sequence[str], n_threads: int
) -> NDArray[np.floating[Any]]:
    try:
        return soap_power_spectrum(
            run.positions,
            run.cells,
            run.pbc,
            run.numbers,
            species=species,
            **settings.soap_arguments(),
            n_threads=n_threads,
        )
    except ValueError as error:
        first, last = run.frame_id[0], run.frame_id[-1]
        raise ValueError(f"frames {first} to {last} have no descriptors: {error}") from error


def _read_ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Produce the next item in another thread while the current one is processed."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = reader.submit(next, items, None)
            yield item


def _digest(part: Iterable[FrameRun], schema: pa.Schema, implementation: str) -> str:
    """Hash of everything that determines the bytes of a part on one machine."""
    digest = hashlib.sha256(schema.metadata[SETTINGS_KEY])
    digest.update(_code_digest(implementation))
    for run in part:
        for array in (run.frame_id, run.numbers, run.positions, run.cells, run.pbc):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


@cache
def _code_digest(implementation: str) -> bytes:
    """Hash of the source of this package and of the version of the library that runs it.

    A matrix therefore never contains parts of two versions.
    """
    digest = hashlib.sha256(f"{implementation} {version(implementation)}".encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.digest()


@contextmanager
def _exclusive(folder: UPath) -> Iterator[None]:
    """Lock a folder, where the file system supports it: another process would delete its parts."""
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", wait=True) if is_local(folder) else nullcontext():
        yield
