"""Leakage-free training, validation and test sets, and the record of held-out frames."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets.common.files import write_text
from mlip_assets.training.labels import frame_sha256, structure_sha256

#: Independent of the campaign, because the tolerance below is measured with these settings.
SOAP: dict[str, Any] = {"r_cut": 5.0, "n_max": 6, "l_max": 4, "sigma": 0.5, "average": "outer"}
#: Largest distance of the normalised mean SOAP vectors of near-duplicates. Measured on 8-atom silicon
#: cells: the distance of frames with 10 fs between them is 0.001-0.003 at 300 K and 0.005-0.009 at
#: 1200 K; that of any two frames of one crystal at 300 K is 0.003. The smallest distance among 40
#: frames selected by DIRECT from 1,120 is 0.011. So thermal copies of one structure are grouped, and
#: the frames of a diverse selection are not.
SOAP_TOLERANCE = 0.01
#: Frames of one walker with at most this number of steps between them are near-duplicates at any SOAP
#: distance: in a small cluster the distance exceeds the tolerance within 10 fs. (``frame_id`` counts
#: steps within a walker.)
ADJACENT_STEPS = 10
MIN_LABELS = 5


@dataclass(frozen=True)
class Split:
    """Frames for the fit, for the choice of the epoch (validation), and never used in training."""

    train: list[Atoms]
    valid: list[Atoms]
    test: list[Atoms]
    left_out: list[Atoms]
    """Near-duplicates of frames on both sides of an earlier split; not used."""

    @property
    def by_name(self) -> dict[str, list[Atoms]]:
        """The three sets by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


@dataclass(frozen=True)
class HeldOut:
    """Structures, by their hashes, on the two sides of all splits of a campaign.

    A model that is fine-tuned from an earlier model has seen the training frames of that model, so
    a frame must never change its side.
    """

    test: frozenset[str] = frozenset()
    """Held out: never used for training or validation."""
    seen: frozenset[str] = frozenset()
    """Used for training or validation."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the file of :meth:`save`; empty before the first split.

        Raises
        ------
        ValueError
            The file is not a record of :meth:`save`.
        """
        if not path.exists():
            return cls()
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            test, seen = (frozenset(map(str, record[side])) for side in ("test", "seen"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not a record of held-out frames ({error!r}); restore it, or delete it "
                "to draw a new held-out set, with which no earlier error can be compared"
            ) from error
        return cls(test, seen)

    def save(self, path: Path) -> None:
        """Write the complete record, or nothing."""
        record = {"test": sorted(self.test), "seen": sorted(self.seen)}
        write_text(path, json.dumps(record, indent=1) + "\n")

    def with_split(self, test: Sequence[Atoms], seen: Sequence[Atoms]) -> HeldOut:
        """The record extended by one split."""
        return HeldOut(
            self.test | {structure_sha256(frame) for frame in test},
            self.seen | {structure_sha256(frame) for frame in seen},
        )


def split_labels(
    labelled: Sequence[Atoms],
    *,
    valid_fraction: float,
    test_fraction: float,
    seed: int,
    held_out: HeldOut | None = None,
) -> Split:
    """Split labels at random by groups of near-duplicates, stratified by the kind of the seed.

    Near-duplicates (SOAP distance at most ``SOAP_TOLERANCE``, or at most ``ADJACENT_STEPS`` steps
    of one walker between them; transitively) form groups. A group is never divided, so that no
    test frame is nearly equal to a training frame. The order in which groups are drawn depends on
    the frames and the seed, not on the order of ``labelled``.

    The first split of a campaign draws its test set, and later splits keep it. Held-out frames stay
    held out, and frames used in training stay so. A new frame joins the side of its group: it is
    held out if its group contains a held-out frame. It is left out if it is also the near-duplicate
    of a frame used in training. All other new frames are for training. A test set is drawn again,
    from unused groups, only if the labels contain none of the held-out frames.

    Parameters
    ----------
    labelled
        Labelled frames (see :mod:`mlip_assets.training.labels`); ``info["seed_kind"]`` stratifies.
    valid_fraction, test_fraction
        Fractions of the frames, as closely as whole groups allow; at least one frame each.
    seed
        Random seed.
    held_out
        Record of the campaign's earlier splits; None for the first split.

    Raises
    ------
    ValueError
        Fewer than five frames, or too few groups of distinct structures.
    """
    if len(labelled) < MIN_LABELS:
        raise ValueError(
            f"{len(labelled)} labels are too few to train, validate and test on; label at least "
            f"{MIN_LABELS} frames (sampling.n_samples)"
        )
    frames = sorted(labelled, key=frame_sha256)
    near = _near_duplicates(frames)
    sides = _Sides.of(frames, near, held_out or HeldOut())
    kinds = [str(frame.info.get("seed_kind", "")) for frame in frames]
    n_test, n_valid = (max(1, round(f * len(frames))) for f in (test_fraction, valid_fraction))

    def random_key(group: Sequence[int]) -> bytes:
        """Key of a random order that is the same after the split has been recorded."""
        first = min(structure_sha256(frames[i]) for i in group)
        return hashlib.sha256(f"{seed} {first}".encode()).digest()

    test, seen, unseen = sides.held_out, sides.seen, sorted(sides.unseen, key=random_key)
    if not test:
        spare = max(2 - len(seen), 0)
        if len(unseen) <= spare:
            raise ValueError(_too_few_groups(len(frames), len(seen), len(unseen)))
        test, unseen = _draw(unseen, kinds, n_test, leave=spare)
    remaining = sorted([*seen, *unseen], key=random_key)
    if len(remaining) < 2:
        raise ValueError(
            f"without the held-out frames the {len(frames)} labels contain only {len(remaining)} "
            "distinct structure(s), too few for training and validation; label new frames"
        )
    valid, remaining = _draw(remaining, kinds, n_valid, leave=1)
    return Split(
        *(
            [frames[i] for i in sorted(chain.from_iterable(part))]
            for part in (remaining, valid, test, [sides.left_out])
        )
    )


@dataclass(frozen=True)
class _Sides:
    """Groups of near-duplicates by their side in earlier splits."""

    held_out: list[list[int]]
    seen: list[list[int]]
    unseen: list[list[int]]
    left_out: list[int]

    @classmethod
    def of(cls, frames: Sequence[Atoms], near: NDArray[np.bool_], known: HeldOut) -> _Sides:
        hashes = [structure_sha256(frame) for frame in frames]
        was_test = np.array([h in known.test for h in hashes])
        was_seen = np.array([h in known.seen for h in hashes])
        is_near_seen = (near & was_seen).any(axis=1)
        sides = cls([], [], [], [])
        for group in _connected_components(near):
            members = np.array(group)
            if was_test[members].any():
                is_left_out = is_near_seen[members] & ~was_test[members] & ~was_seen[members]
                sides.left_out.extend(members[is_left_out].tolist())
                sides.held_out.append(members[~is_left_out & ~was_seen[members]].tolist())
                if was_seen[members].any():
                    sides.seen.append(members[was_seen[members]].tolist())
            else:
                (sides.seen if was_seen[members].any() else sides.unseen).append(group)
        return sides


def group_near_duplicates(frames: Sequence[Atoms]) -> list[list[int]]:
    """Indices of the frames by group of near-duplicates; groups and indices in ascending order."""
    return _connected_components(_near_duplicates(frames))


def _near_duplicates(frames: Sequence[Atoms]) -> NDArray[np.bool_]:
    """Pairs of frames that must be on one side of a split, (n_frames, n_frames) bool."""
    from sklearn.metrics import pairwise_distances

    distance = pairwise_distances(_soap(frames))
    walkers = np.array([str(frame.info.get("walker", i)) for i, frame in enumerate(frames)])
    steps = np.array([int(frame.info.get("frame_id", 0)) for frame in frames])
    adjacent = np.abs(steps[:, None] - steps) <= ADJACENT_STEPS
    alike = distance <= SOAP_TOLERANCE
    near: NDArray[np.bool_] = alike | ((walkers[:, None] == walkers) & adjacent)
    return near


def _connected_components(near: NDArray[np.bool_]) -> list[list[int]]:
    """Connected components of the graph of near-duplicates."""
    from sklearn.cluster import DBSCAN

    # With min_samples=1 every frame is a core point, so the clusters are the connected components.
    distance = np.where(near, 0.0, 1.0)
    group = DBSCAN(eps=0.5, min_samples=1, metric="precomputed").fit(distance).labels_
    return sorted(np.flatnonzero(group == i).tolist() for i in range(group.max() + 1))


def _too_few_groups(n_frames: int, n_seen: int, n_unseen: int) -> str:
    if n_seen:
        return (
            f"of the {n_frames} labels none was held out by this campaign's earlier splits, and "
            f"{n_seen} structure(s) used in training and {n_unseen} others leave no unseen test set; "
            "label new frames (mlip refresh keeps the earlier ones)"
        )
    return (
        f"the {n_frames} labels contain only {n_unseen} distinct structure(s), the others are "
        "near-duplicates, so no unseen test set can be made; explore at higher temperatures or "
        "from more seeds"
    )


def _soap(frames: Sequence[Atoms]) -> NDArray[np.float64]:
    """Normalised mean power spectra of all frames, (n_frames, n_features)."""
    from mlip_assets.descriptors import soap_power_spectrum

    species = sorted({symbol for frame in frames for symbol in frame.get_chemical_symbols()})
    vectors = np.concatenate(
        [
            soap_power_spectrum(
                frame.positions, frame.cell.array, frame.pbc, frame.numbers, species=species, **SOAP
            )
            for frame in frames
        ]
    )
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float64)


def _draw(
    groups: list[list[int]], kinds: Sequence[str], n_wanted: int, *, leave: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Drawn groups with together ``n_wanted`` frames, or the nearest smaller number, and the others."""
    present = Counter(kinds[i] for group in groups for i in group)
    quota = {kind: n_wanted * n / present.total() for kind, n in present.items()}
    drawn: list[list[int]] = []
    remaining = list(groups)
    n_open = n_wanted
    while n_open > 0 and len(remaining) > leave:
        fitting = [group for group in remaining if len(group) <= n_open]
        if not fitting and drawn:
            break
        group = (
            max(fitting, key=lambda members: sum(quota[kinds[i]] for i in members) / len(members))
            if fitting
            else min(remaining, key=len)
        )
        remaining.remove(group)
        drawn.append(group)
        n_open -= len(group)
        for i in group:
            quota[kinds[i]] -= 1
    return drawn, remaining
