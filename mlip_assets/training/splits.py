"""Training, validation and test sets that share no near-duplicates."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets.training.held_out import HeldOut
from mlip_assets.training.labels import frame_sha256, structure_sha256

#: Fixed, not the campaign's: the tolerance below holds for these.
SOAP: dict[str, Any] = {"r_cut": 5.0, "n_max": 6, "l_max": 4, "sigma": 0.5, "average": "outer"}
#: Two frames are near-duplicates when their normalised mean SOAP vectors lie closer than this.
#: Measured on 8-atom silicon cells: frames 10 fs apart lie 0.001-0.003 apart at 300 K and
#: 0.005-0.009 at 1200 K, any two frames of one 300 K crystal 0.003, and the nearest of 40 frames
#: picked by DIRECT from 1,120 lie 0.011 apart. So thermal copies of one structure stay together
#: while a selection made for diversity is hardly grouped at all.
SOAP_TOLERANCE = 0.01
#: Frames of one walker this few steps apart stay together whatever their SOAP distance, which in a
#: small cluster exceeds the tolerance within 10 fs. (``frame_id`` counts steps within a walker.)
ADJACENT_STEPS = 10
MIN_LABELS = 5


@dataclass(frozen=True)
class Split:
    """Frames to fit, frames that pick the epoch, and frames never seen in training."""

    train: list[Atoms]
    valid: list[Atoms]
    test: list[Atoms]
    left_out: list[Atoms]
    """Near-duplicates of frames on both sides of an earlier split: of no use on either."""

    @property
    def by_name(self) -> dict[str, list[Atoms]]:
        """The three sets under their names."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


def split_labels(
    labelled: Sequence[Atoms],
    *,
    valid_fraction: float,
    test_fraction: float,
    seed: int,
    held_out: HeldOut | None = None,
) -> Split:
    """Split labels at random, near-duplicates together and seed kinds in proportion.

    Near-duplicates (SOAP distance below ``SOAP_TOLERANCE``, or one walker at most
    ``ADJACENT_STEPS`` steps apart; transitively) form groups that are never divided, so that the
    held-out errors are not those of frames the model has in effect seen. Groups are drawn in an
    order that depends on the frames and the seed only, never on the order of ``labelled``.

    The first split of a campaign draws its test set, and later ones keep it: what was held out
    stays so, what was seen stays so, and a new frame follows the group it belongs to. One whose
    group reaches the held-out side is held out as well, or, if it is also the near-duplicate of a
    frame that was seen, left out. All other new frames are for training. Only where none of the
    frames held out before is among the labels is a test set drawn again, from unseen groups.

    Parameters
    ----------
    labelled
        Labelled frames (see :mod:`mlip_assets.training.labels`); ``info["seed_kind"]`` stratifies.
    valid_fraction, test_fraction
        Shares of the frames, reached as closely as whole groups allow; at least one frame each.
    seed
        Of the random draw.
    held_out
        What the campaign's earlier splits have decided; None for a first one.

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

    def lot(group: Sequence[int]) -> bytes:
        """A random order that a killed training finds again once its split is on record."""
        first = min(structure_sha256(frames[i]) for i in group)
        return hashlib.sha256(f"{seed} {first}".encode()).digest()

    test, seen, unseen = sides.held_out, sides.seen, sorted(sides.unseen, key=lot)
    if not test:
        spare = max(2 - len(seen), 0)
        if len(unseen) <= spare:
            raise ValueError(_too_few_groups(len(frames), len(seen), len(unseen)))
        test, unseen = _draw(unseen, kinds, n_test, leave=spare)
    remaining = sorted([*seen, *unseen], key=lot)
    if len(remaining) < 2:
        raise ValueError(
            f"beside the held-out frames the {len(frames)} labels hold only {len(remaining)} "
            "distinct structure(s), too few to train and to pick the epoch on; label new frames"
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
    """Groups of near-duplicates, by what earlier splits have made of their members."""

    held_out: list[list[int]]
    seen: list[list[int]]
    unseen: list[list[int]]
    left_out: list[int]

    @classmethod
    def of(cls, frames: Sequence[Atoms], near: NDArray[np.bool_], known: HeldOut) -> _Sides:
        hashes = [structure_sha256(frame) for frame in frames]
        was_test = np.array([h in known.test for h in hashes])
        was_seen = np.array([h in known.seen for h in hashes])
        beside_seen = (near & was_seen).any(axis=1)
        sides = cls([], [], [], [])
        for group in _linked(near):
            members = np.array(group)
            if was_test[members].any():
                is_left = beside_seen[members] & ~was_test[members] & ~was_seen[members]
                sides.left_out.extend(members[is_left].tolist())
                sides.held_out.append(members[~is_left & ~was_seen[members]].tolist())
                if was_seen[members].any():
                    sides.seen.append(members[was_seen[members]].tolist())
            else:
                (sides.seen if was_seen[members].any() else sides.unseen).append(group)
        return sides


def group_near_duplicates(frames: Sequence[Atoms]) -> list[list[int]]:
    """Indices of the frames by group of near-duplicates, each and all in ascending order."""
    return _linked(_near_duplicates(frames))


def _near_duplicates(frames: Sequence[Atoms]) -> NDArray[np.bool_]:
    """Which frames are too alike to be on both sides of a split, (n_frames, n_frames)."""
    from sklearn.metrics import pairwise_distances

    distance = pairwise_distances(_soap(frames))
    walkers = np.array([str(frame.info.get("walker", i)) for i, frame in enumerate(frames)])
    steps = np.array([int(frame.info.get("frame_id", 0)) for frame in frames])
    adjacent = np.abs(steps[:, None] - steps) <= ADJACENT_STEPS
    alike = distance <= SOAP_TOLERANCE
    near: NDArray[np.bool_] = alike | ((walkers[:, None] == walkers) & adjacent)
    return near


def _linked(near: NDArray[np.bool_]) -> list[list[int]]:
    """The connected components of near-duplicates."""
    from sklearn.cluster import DBSCAN

    # With min_samples=1 every frame is a core point, so the clusters are the linked components.
    distance = np.where(near, 0.0, 1.0)
    group = DBSCAN(eps=0.5, min_samples=1, metric="precomputed").fit(distance).labels_
    return sorted(np.flatnonzero(group == i).tolist() for i in range(group.max() + 1))


def _too_few_groups(n_frames: int, n_seen: int, n_unseen: int) -> str:
    if n_seen:
        return (
            f"of the {n_frames} labels none was held out by this campaign's earlier splits, and "
            f"{n_unseen} structure(s) beside {n_seen} seen in training leave no unseen test set; "
            "label new frames (make refresh keeps the earlier ones)"
        )
    return (
        f"the {n_frames} labels hold only {n_unseen} distinct structure(s), the rest are "
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
    """Groups holding ``n_wanted`` frames or the few less that fit, and the groups that remain."""
    present = Counter(kinds[i] for group in groups for i in group)
    owed = {kind: n_wanted * n / present.total() for kind, n in present.items()}
    drawn: list[list[int]] = []
    remaining = list(groups)
    n_open = n_wanted
    while n_open > 0 and len(remaining) > leave:
        fitting = [group for group in remaining if len(group) <= n_open]
        if not fitting and drawn:
            break
        group = (
            max(fitting, key=lambda members: sum(owed[kinds[i]] for i in members) / len(members))
            if fitting
            else min(remaining, key=len)
        )
        remaining.remove(group)
        drawn.append(group)
        n_open -= len(group)
        for i in group:
            owed[kinds[i]] -= 1
    return drawn, remaining
