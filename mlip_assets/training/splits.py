"""Training, validation and test sets that share no near-duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets.training.labels import frame_sha256

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

    @property
    def by_name(self) -> dict[str, list[Atoms]]:
        """The three sets under their names."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


def split_labels(
    labelled: Sequence[Atoms], *, valid_fraction: float, test_fraction: float, seed: int
) -> Split:
    """Split labels at random, near-duplicates together and seed kinds in proportion.

    Near-duplicates (SOAP distance below ``SOAP_TOLERANCE``, or one walker at most
    ``ADJACENT_STEPS`` steps apart; transitively) form groups that are never divided, so that the
    held-out errors are not those of frames the model has in effect seen. Groups are drawn in an
    order that depends on the frames and the seed only, never on the order of ``labelled``.

    Parameters
    ----------
    labelled
        Labelled frames (see :mod:`mlip_assets.training.labels`); ``info["seed_kind"]`` stratifies.
    valid_fraction, test_fraction
        Shares of the frames, reached as closely as whole groups allow; at least one frame each.
    seed
        Of the random draw.

    Raises
    ------
    ValueError
        Fewer than five frames, or fewer than three groups of distinct structures.
    """
    if len(labelled) < MIN_LABELS:
        raise ValueError(
            f"{len(labelled)} labels are too few to train, validate and test on; label at least "
            f"{MIN_LABELS} frames (sampling.n_samples)"
        )
    frames = sorted(labelled, key=frame_sha256)
    groups = group_near_duplicates(frames)
    if len(groups) < 3:
        raise ValueError(
            f"the {len(frames)} labels hold only {len(groups)} distinct structure(s), the rest are "
            "near-duplicates, so no unseen test set can be made; explore at higher temperatures or "
            "from more seeds"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    remaining = [groups[i] for i in order]
    kinds = [str(frame.info.get("seed_kind", "")) for frame in frames]
    n_test, n_valid = (max(1, round(f * len(frames))) for f in (test_fraction, valid_fraction))
    test, remaining = _draw(remaining, kinds, n_test, leave=2)
    valid, remaining = _draw(remaining, kinds, n_valid, leave=1)
    return Split(
        *([frames[i] for i in sorted(chain.from_iterable(p))] for p in (remaining, valid, test))
    )


def group_near_duplicates(frames: Sequence[Atoms]) -> list[list[int]]:
    """Indices of the frames by group of near-duplicates, each and all in ascending order."""
    from sklearn.cluster import DBSCAN
    from sklearn.metrics import pairwise_distances

    distance = pairwise_distances(_soap(frames))
    walkers = np.array([str(frame.info.get("walker", i)) for i, frame in enumerate(frames)])
    steps = np.array([int(frame.info.get("frame_id", 0)) for frame in frames])
    adjacent = np.abs(steps[:, None] - steps) <= ADJACENT_STEPS
    distance[(walkers[:, None] == walkers) & adjacent] = 0
    # With min_samples=1 every frame is a core point, so the clusters are the linked components.
    linked = DBSCAN(eps=SOAP_TOLERANCE, min_samples=1, metric="precomputed").fit(distance).labels_
    members = [np.flatnonzero(linked == i).tolist() for i in range(linked.max() + 1)]
    return sorted(members)


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
