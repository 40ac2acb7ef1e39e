from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlip_assets.training import HeldOut, split_labels
from mlip_assets.training.labels import structure_sha256
from mlip_assets.training.splits import group_near_duplicates

KINDS = ("crystal", "liquid", "vacancy")


def make_frame(number, atoms, kind="crystal", walker=None):
    frame = atoms.copy()
    frame.info = {
        "frame_id": 1000 * number,
        "walker": walker or f"walker-{number}",
        "seed_kind": kind,
        "REF_energy": float(number),
    }
    frame.arrays["REF_forces"] = np.zeros((len(frame), 3))
    return frame


def rattled(rng, width):
    atoms = bulk("Cu", cubic=True)
    atoms.positions += rng.normal(0, width, atoms.positions.shape)
    return atoms


def identifiers(frames):
    return [frame.info["frame_id"] for frame in frames]


@given(
    n_distinct=st.integers(5, 14),
    n_copies=st.integers(0, 6),
    seed=st.integers(0, 2**32 - 1),
    fractions=st.tuples(st.floats(0.02, 0.3), st.floats(0.02, 0.3)),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_split_labels_is_complete_disjoint_leakage_free_and_independent_of_order(
    n_distinct, n_copies, seed, fractions
):
    rng = np.random.default_rng(seed)
    frames = [make_frame(i, rattled(rng, 0.5), KINDS[i % 3]) for i in range(n_distinct)]
    originals = rng.integers(n_distinct, size=n_copies)
    for i, original in enumerate(originals):
        copy = frames[original].copy()
        copy.positions += rng.normal(0, 1e-3, copy.positions.shape) + 40.0
        frames.append(make_frame(n_distinct + i, copy, frames[original].info["seed_kind"]))
    wanted = {"valid_fraction": fractions[0], "test_fraction": fractions[1], "seed": seed}

    split = split_labels(frames, **wanted)
    parts = {name: identifiers(part) for name, part in split.by_name.items()}
    assert all(parts.values())
    assert sorted(chain.from_iterable(parts.values())) == sorted(identifiers(frames))
    set_of = {identifier: name for name, part in parts.items() for identifier in part}
    for i, original in enumerate(originals):
        assert set_of[1000 * (n_distinct + i)] == set_of[1000 * original]

    shuffled = [frames[i] for i in rng.permutation(len(frames))]
    again = split_labels(shuffled, **wanted)
    assert {name: identifiers(part) for name, part in again.by_name.items()} == parts


def test_split_labels_sizes_and_kinds_follow_fractions():
    rng = np.random.default_rng(0)
    frames = [make_frame(i, rattled(rng, 0.5), KINDS[i % 3]) for i in range(60)]
    split = split_labels(frames, valid_fraction=0.1, test_fraction=0.15, seed=1)
    assert [len(part) for part in split.by_name.values()] == [45, 6, 9]
    for part in (split.valid, split.test):
        kinds = [frame.info["seed_kind"] for frame in part]
        assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, len(part) // 3)


def test_split_labels_depends_on_random_seed():
    rng = np.random.default_rng(0)
    frames = [make_frame(i, rattled(rng, 0.5)) for i in range(20)]
    tests = {
        tuple(identifiers(split_labels(frames, valid_fraction=0.1, test_fraction=0.2, seed=s).test))
        for s in range(5)
    }
    assert len(tests) > 1


def test_near_duplicates_include_rotated_and_permuted_copies():
    rng = np.random.default_rng(0)
    atoms = rattled(rng, 0.3)
    turned = atoms[[2, 0, 3, 1]]
    turned.rotate(37, "z", rotate_cell=True)
    frames = [make_frame(0, atoms), make_frame(1, rattled(rng, 0.3)), make_frame(2, turned)]
    assert group_near_duplicates(frames) == [[0, 2], [1]]


def test_near_duplicates_include_adjacent_steps_of_one_walker():
    rng = np.random.default_rng(0)
    frames = [make_frame(0, rattled(rng, 0.5), walker="w") for _ in range(3)]
    for frame, step in zip(frames, (5, 10, 400), strict=True):
        frame.info["frame_id"] = step
    assert group_near_duplicates(frames) == [[0, 1], [2]]


def test_split_labels_refuses_few_labels_and_few_distinct_structures():
    rng = np.random.default_rng(0)
    fractions = {"valid_fraction": 0.1, "test_fraction": 0.2, "seed": 0}
    with pytest.raises(ValueError, match="4 labels are too few"):
        split_labels([make_frame(i, rattled(rng, 0.5)) for i in range(4)], **fractions)
    alike = [make_frame(i, rattled(rng, 1e-4)) for i in range(8)]
    with pytest.raises(ValueError, match=r"only 1 distinct structure\(s\)"):
        split_labels(alike, **fractions)


FRACTIONS = {"valid_fraction": 0.15, "test_fraction": 0.25, "seed": 1}


def structures(frames):
    return {structure_sha256(frame) for frame in frames}


@given(
    n_first=st.integers(6, 10),
    additions=st.lists(
        st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), max_size=4),
        min_size=1,
        max_size=3,
    ),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_split_labels_with_added_labels_keeps_side_of_every_frame(n_first, additions, seed):
    rng = np.random.default_rng(seed)
    frames = [make_frame(i, rattled(rng, 0.5), KINDS[i % 3]) for i in range(n_first)]
    held_out = HeldOut()
    for batch in [[], *additions]:
        for number, is_copy in batch:
            if is_copy:  # of any frame, on either side
                atoms = frames[number % len(frames)].copy()
                atoms.positions += rng.normal(0, 1e-3, atoms.positions.shape)
            else:
                atoms = rattled(rng, 0.5)
            frames.append(make_frame(len(frames), atoms, KINDS[number % 3]))
        split = split_labels(frames, held_out=held_out, **FRACTIONS)
        test, fitted = structures(split.test), structures([*split.train, *split.valid])
        assert held_out.test <= test
        assert held_out.seen <= fitted
        assert not test & fitted
        assert test | fitted | structures(split.left_out) == structures(frames)
        sides = [*split.test, *split.train, *split.valid]
        is_test = np.arange(len(sides)) < len(split.test)
        for group in group_near_duplicates(sides):
            assert is_test[group].all() or not is_test[group].any()
        held_out = held_out.with_split(split.test, [*split.train, *split.valid])
        again = split_labels(frames, held_out=held_out, **FRACTIONS)
        assert {n: identifiers(p) for n, p in again.by_name.items()} == {
            n: identifiers(p) for n, p in split.by_name.items()
        }, "a restarted training must find its own split"


def test_split_labels_leaves_out_frame_near_both_sides():
    rng = np.random.default_rng(0)
    frames = [make_frame(i, rattled(rng, 0.5)) for i in range(8)]
    first = split_labels(frames, **FRACTIONS)
    held_out = HeldOut().with_split(first.test, [*first.train, *first.valid])
    bridge = make_frame(9, first.train[0])
    bridge.positions += rng.normal(0, 1e-3, bridge.positions.shape)
    bridge.info["walker"] = first.test[0].info["walker"]
    bridge.info["frame_id"] = first.test[0].info["frame_id"] + 5
    split = split_labels([*frames, bridge], held_out=held_out, **FRACTIONS)
    assert identifiers(split.left_out) == identifiers([bridge])
    assert identifiers(split.test) == identifiers(first.test)


def test_split_labels_draws_new_test_set_from_unseen_frames():
    rng = np.random.default_rng(0)
    frames = [make_frame(i, rattled(rng, 0.5)) for i in range(8)]
    first = split_labels(frames, **FRACTIONS)
    held_out = HeldOut().with_split(first.test, [*first.train, *first.valid])
    with pytest.raises(ValueError, match=r"none was held out .* leave no unseen test set"):
        split_labels([*first.train, *first.valid], held_out=held_out, **FRACTIONS)
    new = [make_frame(20 + i, rattled(rng, 0.5)) for i in range(3)]
    split = split_labels([*first.train, *new], held_out=held_out, **FRACTIONS)
    assert set(identifiers(split.test)) <= set(identifiers(new))


def test_held_out_record_opens_as_saved_and_refuses_invalid_file(tmp_path):
    record = tmp_path / "held_out.json"
    assert HeldOut.open(record) == HeldOut()
    held_out = HeldOut(frozenset({"a", "b"}), frozenset({"c"}))
    held_out.save(record)
    assert HeldOut.open(record) == held_out
    for text in ("{", '{"test": []}', "[]"):
        record.write_text(text)
        with pytest.raises(ValueError, match="not a record of held-out frames"):
            HeldOut.open(record)
