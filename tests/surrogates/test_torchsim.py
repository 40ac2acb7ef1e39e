"""torch-sim batches: results independent of the batch, batches limited by memory."""

import json
import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from mlip_assets.campaign import Campaign
from mlip_assets.dynamics import plan_walkers, run_walkers
from mlip_assets.dynamics.exploration import steps_done
from mlip_assets.surrogates import BatchCalculator, SurrogateError, find_surrogate
from mlip_assets.surrogates.batch import evaluate
from mlip_assets.surrogates.committee import make_committee
from mlip_assets.surrogates.models import mace
from mlip_assets.surrogates.models.chgnet import ChgnetSurrogate
from mlip_assets.surrogates.torchsim import TorchSimCalculator
from mlip_assets.trajectory import FRAME_ID_STRIDE
from mlip_assets.trajectory.radial_distribution import radial_distribution
from tests.dynamics.oscillators import columns, same

torch = pytest.importorskip("torch")
MaceModel = pytest.importorskip("torch_sim.models.mace").MaceModel


def bundled(dtype="float32"):
    return find_surrogate("bundled", device="cpu", dtype=dtype)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def calculator():
    return bundled().calculator(md_backend="torchsim")


def silicon(seed=0, repeat=(1, 1, 1)):
    atoms = bulk("Si", cubic=True) * repeat
    atoms.rattle(0.1, seed=seed)
    atoms.info.update(seed_name=f"silicon{seed}", seed_kind="crystal")
    return atoms


def mixture():
    """Periodic in three, two and no directions; several elements and sizes."""
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    cluster = molecule("H2O")
    cluster.symbols[:] = ["O", "Na", "Cl"]
    salt = bulk("NaCl", "rocksalt", 5.7)
    frames = [silicon(1), slab, cluster, salt * (2, 1, 1), silicon(2, (2, 1, 1)), silicon(3)]
    for number, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=number)
    return frames


def equal(left, right):
    stress = (left.stress is None and right.stress is None) or np.array_equal(
        left.stress, right.stress
    )
    return (
        left.energy_eV == right.energy_eV and np.array_equal(left.forces, right.forces) and stress
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-10)])
def test_torchsim_agrees_with_mace_calculator(dtype, tolerance):
    surrogate = bundled(dtype)
    reference = surrogate.calculator()
    found = surrogate.calculator(md_backend="torchsim").calculate_batch(mixture())
    for atoms, evaluation in zip(mixture(), found, strict=True):
        atoms.calc = reference
        assert evaluation.energy_eV == pytest.approx(
            atoms.get_potential_energy(), abs=tolerance * len(atoms)
        )
        forces = atoms.get_forces()
        largest = max(1.0, np.abs(forces).max())  # of the molecule, whose atoms nearly overlap
        assert np.abs(evaluation.forces - forces).max() < tolerance * largest
        assert (evaluation.stress is None) == (not atoms.pbc.all())
        if evaluation.stress is not None:
            assert np.abs(evaluation.stress - atoms.get_stress()).max() < tolerance


def test_results_are_independent_of_other_frames_in_batch(calculator):
    frames = mixture()
    together = calculator.calculate_batch(frames)
    backwards = calculator.calculate_batch(frames[::-1])[::-1]
    alone = [calculator.calculate_batch([atoms])[0] for atoms in frames]
    assert all(map(equal, together, alone))
    assert all(map(equal, together, backwards))


def test_results_follow_changed_assignment_of_atoms_to_systems(calculator):
    one = silicon(0, (2, 1, 1))
    halves = [silicon(1), silicon(2)]
    before = calculator.calculate_batch(halves)
    whole = calculator.calculate_batch([one])
    assert len(whole) == 1
    assert whole[0].forces.shape == (16, 3)
    assert all(map(equal, before, calculator.calculate_batch(halves)))


def walkers_of(seeds, **exploration):
    given = {"n_steps": 30, "sample_every": 3, "temperatures_K": [600], **exploration}
    campaign = Campaign(
        name="mine",
        composition="Si",
        exploration=given,
        sampling={"n_samples": 1},
    )
    return plan_walkers(campaign, seeds, bundled().sha256)


def frames_of(walker, trajectory):
    everything = columns(trajectory)
    mine = everything["frame_id"] // FRAME_ID_STRIDE == walker.number
    return {name: values[mine] for name, values in everything.items()}


@pytest.mark.parametrize("ensemble", ["nvt", "npt_full"])
def test_walker_frames_are_independent_of_other_walkers(calculator, tmp_path, ensemble):
    broken = silicon(9)
    broken.positions[1] = broken.positions[0] + 0.2  # stopped by a guard in the first step
    seeds = [silicon(0), silicon(1), broken, silicon(2)]
    planned = walkers_of(seeds, ensemble=ensemble)
    together = run_walkers(planned, lambda: calculator, tmp_path / "together")
    assert [bool(walker.stopped_by) for walker in together.walkers] == [False, False, True, False]
    alone = run_walkers(planned[3:], lambda: calculator, tmp_path / "alone")
    assert same(frames_of(planned[3], together), frames_of(planned[3], alone))


def test_interrupted_batch_resumes_to_identical_frames(calculator, tmp_path):
    seeds = [silicon(seed) for seed in range(4)]
    unbroken = columns(run_walkers(walkers_of(seeds), lambda: calculator, tmp_path / "unbroken"))
    calls = iter(range(1000))

    class Dying(TorchSimCalculator):
        def calculate_batch(self, frames):
            if next(calls) == 17:
                raise KeyboardInterrupt
            return calculator.calculate_batch(frames)

    dying = object.__new__(Dying)
    dying.batch_atoms = None
    planned = walkers_of(seeds, checkpoint_every=5)
    with pytest.raises(KeyboardInterrupt):
        run_walkers(planned, lambda: dying, tmp_path / "broken")
    assert [steps_done(walker, tmp_path / "broken") for walker in planned] == [15] * 4
    # one is completed alone, so that the batch of the others is smaller
    run_walkers(planned[1:2], lambda: calculator, tmp_path / "broken")
    resumed = columns(run_walkers(planned, lambda: calculator, tmp_path / "broken"))
    assert same(unbroken, resumed)


@pytest.mark.slow
def test_two_processes_share_walkers(tmp_path):
    seeds = [silicon(seed) for seed in range(4)]
    makers = bundled().calculators(2, "torchsim")
    shared = columns(run_walkers(walkers_of(seeds, n_steps=9), makers, tmp_path / "two"))
    one = columns(run_walkers(walkers_of(seeds, n_steps=9), makers[:1], tmp_path / "one"))
    assert same(one, shared)


@pytest.mark.slow
def test_md_backends_give_the_same_trajectory(calculator, tmp_path):
    """With the same thermostat noise they differ by rounding errors, which grow."""
    seeds = [silicon(seed) for seed in range(4)]
    given = {"n_steps": 100, "sample_every": 5, "temperatures_K": [900]}
    ase = bundled().calculator()
    paths = {
        "torchsim": run_walkers(walkers_of(seeds, **given), lambda: calculator, tmp_path / "a"),
        "ase": run_walkers(walkers_of(seeds, **given), lambda: ase, tmp_path / "b"),
        "other": run_walkers(
            walkers_of([silicon(seed) for seed in range(4, 8)], **given),
            lambda: calculator,
            tmp_path / "c",
        ),
    }
    positions = {name: columns(path)["positions"] for name, path in paths.items()}
    apart = np.abs(positions["ase"] - positions["torchsim"]).max()
    assert apart < 0.02
    curves = {
        name: radial_distribution(path.iter_frames(), r_max_A=5.0)[1]
        for name, path in paths.items()
    }
    noise = np.abs(curves["other"] - curves["torchsim"]).mean()
    assert np.abs(curves["ase"] - curves["torchsim"]).mean() < 0.2 * noise


class SmallMemory(MaceModel):
    """A model on a device with memory for ``n_atoms`` atoms."""

    def __init__(self, n_atoms, error=None):
        super().__init__(bundled().module(), device=torch.device("cpu"), dtype=torch.float32)
        self.max_atoms, self.batches = n_atoms, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def forward(self, state):
        if state.n_atoms > self.max_atoms:
            raise self.error
        self.batches.append(int(state.n_atoms))
        return super().forward(state)


def small(model, folder):
    return TorchSimCalculator(
        model,
        r_cut=5.0,
        batch_atoms=None,
        limits=folder / "limits.json",
        limits_key="weights on H200",
    )


def test_batch_is_halved_on_memory_error_and_limit_is_stored(calculator, tmp_path, caplog):
    model = SmallMemory(60)
    frames = [silicon(seed) for seed in range(16)]
    with caplog.at_level(logging.WARNING):
        found = small(model, tmp_path).calculate_batch(frames)
    assert "128 atoms per batch exceed the memory" in caplog.text
    assert all(map(equal, found, calculator.calculate_batch(frames)))
    assert model.batches == [48] * 4  # 128 and 64 exceed the memory; 32 are padded by 16
    assert json.loads((tmp_path / "limits.json").read_text()) == {"weights on H200": 32}
    again = SmallMemory(60)
    small(again, tmp_path).calculate_batch(frames)
    assert again.batches == [48] * 4  # a later process reads the limit


@pytest.mark.parametrize(
    ("message", "is_memory"),
    [("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", True), ("shapes differ", False)],
)
def test_memory_error_is_recognised_by_message(tmp_path, message, is_memory):
    calculator = small(SmallMemory(30, RuntimeError(message)), tmp_path)
    frames = [silicon(0), silicon(1), silicon(2)]
    if is_memory:
        assert len(calculator.calculate_batch(frames)) == 3
    else:
        with pytest.raises(RuntimeError, match=message):
            calculator.calculate_batch(frames)
    assert (tmp_path / "limits.json").exists() == is_memory


def test_frame_larger_than_memory_is_an_error(tmp_path):
    with pytest.raises(SurrogateError, match="8 atoms exceed the memory of cpu"):
        small(SmallMemory(15), tmp_path).calculate_batch([silicon(0), silicon(1)])


def test_walker_frames_are_independent_of_memory_limit(calculator, tmp_path):
    planned = walkers_of([silicon(seed) for seed in range(6)], n_steps=9)
    limited = run_walkers(planned, lambda: small(SmallMemory(36), tmp_path), tmp_path / "limited")
    unlimited = run_walkers(planned, lambda: calculator, tmp_path / "unlimited")
    assert same(columns(limited), columns(unlimited))


def test_md_backend_depends_on_device_size_and_number(monkeypatch):
    surrogate = bundled()
    assert surrogate.md_backend("auto", [8] * 16) == "torchsim"
    assert surrogate.md_backend("auto", [8] * 2) == "ase"
    assert surrogate.md_backend("auto", [64] * 16) == "ase"
    assert surrogate.md_backend("ase", [8] * 16) == "ase"
    on_gpu = type(surrogate)("bundled", surrogate.sha256, ("cuda:0",), "float32", None)
    assert on_gpu.md_backend("auto", [64] * 2) == "torchsim"
    monkeypatch.setattr(mace, "find_spec", lambda _: None)
    assert surrogate.md_backend("auto", [8] * 16) == "ase"


def test_md_backend_refuses_unsupported_surrogate():
    other = ChgnetSurrogate("chgnet", "0" * 64, ("cpu",), "float32")
    with pytest.raises(
        SurrogateError, match=r"'chgnet' is not a MACE model, and torch-sim supports no other"
    ):
        make_committee([bundled(), other]).md_backend("torchsim", [8])
    assert make_committee([bundled(), other]).md_backend("auto", [8] * 16) == "ase"


def test_torchsim_accepts_isolated_atom(calculator):
    (found,) = calculator.calculate_batch([Atoms("Si")])
    assert found.stress is None
    assert np.abs(found.forces).max() < 1e-6


def test_batched_committee_is_mean_of_members(tmp_path):
    module = bundled().module()
    with torch.no_grad():
        next(p for n, p in module.named_parameters() if "readouts.0" in n).mul_(1.1)
    torch.save(module, tmp_path / "other.model")
    committee = find_surrogate(
        ["bundled", str(tmp_path / "other.model")], device="cpu", dtype="float32"
    )
    assert committee.md_backend("auto", [8] * 8) == "torchsim"
    assert committee.md_backend("auto", [8]) == "ase"
    batched = committee.calculator(md_backend="torchsim")
    assert isinstance(batched, BatchCalculator)
    assert not isinstance(committee.calculator(), BatchCalculator)
    assert batched.batch_atoms == mace.CPU_BATCH_ATOMS
    frames = mixture()
    together = batched.calculate_batch(frames)
    one_by_one = evaluate(committee.calculator(), frames)
    for ours, theirs in zip(together, one_by_one, strict=True):
        assert ours.energy_eV == pytest.approx(theirs.energy_eV, rel=1e-5)
        np.testing.assert_allclose(ours.forces, theirs.forces, atol=1e-3)
        np.testing.assert_allclose(ours.force_spread, theirs.force_spread, atol=1e-3)
        assert (ours.stress is None) == (theirs.stress is None)
    assert equal(batched.calculate_batch(frames[2:3])[0], together[2])
