"""Surrogates by name, bundled or from a file; no other model is used instead."""

import os
import pickle
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlip_assets.campaign import NAMED_SURROGATES, Campaign
from mlip_assets.common.files import sha256_of_file
from mlip_assets.compute.devices import DeviceError, find_device
from mlip_assets.surrogates import SurrogateError, find_surrogate
from mlip_assets.surrogates.models.mace import MACE_TORCH_NAMES, MaceSurrogate
from mlip_assets.surrogates.registry import FINDERS
from resources.surrogate import SurrogateResource
from tests.surrogates import surrogate_checks as checks

ROOT = Path(__file__).parents[2]
CUDA = torch.cuda.is_available()


def bundled(**settings):
    return find_surrogate("bundled", **{"device": "cpu", "dtype": "float32", **settings})


def test_finders_cover_all_names_of_campaigns():
    from mace.calculators.foundations_models import mace_mp_names

    several_heads = {None, "mh-0", "mh-1"}
    assert set(MACE_TORCH_NAMES.values()) == set(mace_mp_names) - several_heads
    assert set(FINDERS) == {"bundled", *NAMED_SURROGATES}


def test_find_surrogate_reads_cache_of_mace_torch(tmp_path, monkeypatch):
    """The cache of the downloader contains a file with the name of the download."""
    from mace.calculators import foundations_models as hub

    monkeypatch.setattr(hub, "get_cache_dir", lambda: str(tmp_path))
    url = hub.mace_mp_urls["medium-0b3"]
    cached = tmp_path / "".join(c for c in Path(url).name if c.isalnum() or c == "_")
    bundled().save_model(cached)
    surrogate = find_surrogate("mace-mp-0b3", device="cpu", dtype="float32")
    assert surrogate.sha256 == sha256_of_file(cached)
    atoms = bulk("Si")
    atoms.calc = surrogate.calculator()
    reference = bulk("Si")
    reference.calc = bundled().calculator()
    assert atoms.get_potential_energy() == pytest.approx(reference.get_potential_energy(), abs=1e-6)


def test_find_surrogate_reports_failed_download(tmp_path, monkeypatch):
    from mace.calculators import foundations_models as hub

    def refuse(*_):
        raise OSError("network unreachable")

    monkeypatch.setattr(hub, "get_cache_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub, "_urlretrieve_with_timeout", refuse)
    with pytest.raises(SurrogateError, match="network unreachable"):
        find_surrogate("mace-mp-0", device="cpu", dtype="float32")


def test_find_surrogate_checks_hash_before_unpickling(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    file = tmp_path / "evil.model"
    file.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(SurrogateError, match="hashes to"):
        find_surrogate(str(file), device="cpu", dtype="float32", sha256="0" * 64)
    assert not (tmp_path / "harm").exists()


def test_model_file_is_unpickled_once_and_never_after_a_change(tmp_path, monkeypatch):
    file = bundled().save_model(tmp_path / "a.model")
    loads, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: loads.append(1) or load(*a, **k))
    surrogate = find_surrogate(str(file), device="cpu", dtype="float32")
    assert not loads
    surrogate.require_elements(["Si"])
    assert surrogate.elements() == bundled().elements()
    surrogate.calculator()
    assert len(loads) == 1
    assert surrogate.module() is not surrogate.module()
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(SurrogateError, match="has changed since"):
        surrogate.module()


def test_find_surrogate_refuses_files_of_other_content(tmp_path):
    (tmp_path / "text.model").write_text("not a model")
    torch.save({"state": 1}, tmp_path / "state.model")
    for name, message in (
        ("text", "cannot be loaded as a MACE model"),
        ("state", "contains a dict"),
    ):
        file = str(tmp_path / f"{name}.model")
        with pytest.raises(SurrogateError, match=message):
            find_surrogate(file, device="cpu", dtype="float32").elements()


def test_find_surrogate_names_missing_package_and_nearest_name(monkeypatch):
    from mlip_assets.surrogates import surrogate as base

    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None)
    for name in ("chgnet", "m3gnet"):
        with pytest.raises(SurrogateError, match=rf"pip install 'mlip-autopipe\[{name}\]'"):
            find_surrogate(name, device="cpu", dtype="float32")
    with pytest.raises(SurrogateError, match="did you mean 'mace-omat-0'"):
        find_surrogate("mace-omat0", device="cpu", dtype="float32")


def test_own_model_is_the_promoted_model(tmp_path):
    """The next exploration of the campaign uses the model that was promoted."""
    from mlip_assets.release import PromotedModels
    from mlip_assets.release.promotion import Promotion
    from mlip_assets.training import TrainedModel

    campaign = Campaign(name="si", composition="Si", exploration={"surrogate": "own-model"})
    resource = SurrogateResource(own_models=str(tmp_path / "{campaign}" / "promoted"))
    with pytest.raises(SurrogateError, match=r"holds none yet; .*'bundled'"):
        resource.resolve(campaign)
    trained = TrainedModel(
        model_file=bundled().save_model(tmp_path / "trained.model"),
        metrics={},
        dataset_sha256="0" * 64,
        weights_sha256="0" * 64,
        parity={},
        elements=("Si",),
        start_from="scratch",
        wall_s=1.0,
    )
    models = PromotedModels(tmp_path / "si" / "promoted")
    models.promote(trained, Promotion(True, "the first", 1.0, 1.0))
    folder = tmp_path / "si" / "promoted" / ("0" * 16)
    surrogate = resource.resolve(campaign)
    assert surrogate.metadata()["surrogate"] == "own-model"
    assert surrogate.sha256 == sha256_of_file(folder / "model.model")
    atoms, reference = bulk("Si"), bulk("Si")
    atoms.calc, reference.calc = surrogate.calculator(), bundled().calculator()
    assert atoms.get_potential_energy() == pytest.approx(reference.get_potential_energy(), abs=1e-6)
    (folder / "model.model").write_bytes(b"swapped")
    with pytest.raises(SurrogateError, match="changed after training"):
        resource.resolve(campaign)
    with pytest.raises(SurrogateError, match="only within a campaign"):
        find_surrogate("own-model", device="cpu", dtype="float32")


def test_surrogate_errors_name_file_device_and_element():
    with pytest.raises(SurrogateError, match="no model file"):
        find_surrogate("missing.model", device="cpu", dtype="float32")
    campaign = Campaign(name="iron", composition="Fe")
    with pytest.raises(SurrogateError, match="does not support Fe"):
        SurrogateResource().resolve(campaign)
    if not CUDA:
        assert find_device("auto", "exploration.device") == "cpu"
        with pytest.raises(DeviceError, match=r"training\.device: 'cuda:3'"):
            find_device("cuda:3", "training.device")


def test_metadata_identifies_weights_package_and_device():
    described = SurrogateResource().resolve(Campaign(name="si", composition="Si")).metadata()
    assert described["surrogate"] == "bundled"
    assert len(described["surrogate_sha256"]) == 64
    assert described["package_version"] == f"mace-torch {version('mace-torch')}"
    assert described["licence"] == "MIT"
    assert described["device"] == ("cuda:0" if CUDA else "cpu")


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("mace-mp-0b3", "MIT"),
        ("mace-mpa-0", "MIT"),
        ("mace-omat-0-small", "Academic Software License (no commercial use)"),
        ("mace-matpes-r2scan-0", "Academic Software License (no commercial use)"),
        ("own-model", "trained by this campaign"),
        ("/models/mine.model", "see the file's provider"),
    ],
)
def test_licence_of_mace_weights(name, licence):
    assert MaceSurrogate(name, "0" * 64, ("cpu",), "float32", None).licence() == licence


def test_float32_agrees_with_float64():
    shift = np.random.default_rng(0).normal(0, 0.1, (8, 3))
    forces = []
    for dtype in ("float32", "float64"):
        atoms = bulk("Si", cubic=True)
        atoms.positions += shift
        atoms.calc = bundled(dtype=dtype).calculator()
        forces.append(atoms.get_forces())
    assert np.abs(forces[0] - forces[1]).max() < 1e-4


@pytest.mark.slow
def test_first_call_in_a_process_is_bit_identical_to_later_calls():
    """Required for walkers that resume in a new process."""
    code = (
        "import numpy as np; from ase.build import bulk\n"
        "from mlip_assets.surrogates import find_surrogate\n"
        "calculator = find_surrogate('bundled', device='cpu', dtype='float32').calculator()\n"
        "atoms = bulk('Si', cubic=True); atoms.calc = calculator\n"
        "atoms.positions += np.random.default_rng(0).normal(0, 0.1, (8, 3))\n"
        "calls = [(calculator.reset(), atoms.get_forces().tobytes())[1] for _ in range(6)]\n"
        "assert len(set(calls)) == 1, [call == calls[-1] for call in calls]\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


@pytest.mark.slow
def test_walker_with_mace_resumes_bit_for_bit(tmp_path):
    from mlip_assets.dynamics import plan_walkers, run_walkers

    def explored(folder, n_steps):
        atoms = bulk("Si", cubic=True)
        atoms.info.update(seed_name="crystal", seed_kind="crystal")
        exploration = {"n_steps": n_steps, "sample_every": 1, "temperatures_K": [1200]}
        campaign = Campaign(
            name="si", composition="Si", exploration=exploration, sampling={"n_samples": 1}
        )
        walkers = plan_walkers(campaign, [atoms], bundled().sha256)
        batches = run_walkers(walkers, bundled().calculator, folder).iter_batches()
        return np.concatenate([np.ravel(b["positions"].flatten().to_numpy()) for b in batches])

    unbroken = explored(tmp_path / "unbroken", 120)
    explored(tmp_path / "resumed", 50)
    assert np.array_equal(explored(tmp_path / "resumed", 120), unbroken)


@pytest.mark.parametrize("composition", ["Si", "MgO"])
def test_bundled_surrogate_explores(composition, tmp_path):
    checks.check_exploration(bundled(), composition, tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="torch sees no CUDA device on this machine")
def test_gpu_runs_this_process_during_md(tmp_path):
    from mlip_assets.dynamics import plan_walkers, run_walker

    atoms = bulk("Si", cubic=True) * (2, 2, 2)
    atoms.info.update(seed_name="crystal", seed_kind="crystal")
    campaign = Campaign(
        name="si", composition="Si", exploration={"n_steps": 2000, "device": "cuda"}
    )
    surrogate = SurrogateResource().resolve(campaign)
    assert surrogate.metadata()["gpu_name"]
    (walker, *_) = plan_walkers(campaign, [atoms], surrogate.sha256)
    seen, last = [], time.monotonic()

    def look(_):
        nonlocal last
        if time.monotonic() - last > 1 or not seen:
            last = time.monotonic()
            command = [
                "nvidia-smi",
                "--query-compute-apps=pid,used_memory",
                "--format=csv,noheader",
            ]
            listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seen.append(str(os.getpid()) in [line.split(",")[0] for line in listed.splitlines()])

    report, _ = run_walker(walker, surrogate.calculator(), tmp_path, on_steps=look)
    assert report.stopped_by is None
    assert any(seen), "nvidia-smi never listed this process"
