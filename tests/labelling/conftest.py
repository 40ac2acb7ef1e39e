from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from toy_engine import ToyEngine  # noqa: E402  next to this file, where child processes find it too

from mlip_assets.labelling import LabelLedger  # noqa: E402


@pytest.fixture(autouse=True)
def _add_toy_engine_to_python_path(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.fixture
def ledger(tmp_path: Path) -> LabelLedger:
    return LabelLedger(tmp_path / "ledger" / "labels.db")


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[str]]:
    """Formula, attempt and process of each calculation that the toy engine started."""
    file = tmp_path / "calls.txt"
    return lambda: file.read_text().split() if file.exists() else []


@pytest.fixture
def toy(tmp_path: Path) -> ToyEngine:
    return ToyEngine(calls_file=str(tmp_path / "calls.txt"))


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to an empty folder, because engines compute in the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def pseudo_dojo() -> Path:
    """The folder of ``make pseudopotentials``; skips if Quantum ESPRESSO is not installed."""
    if shutil.which("pw.x") is None:
        pytest.skip("pw.x is not installed")
    folder = HERE.parents[1] / "data" / "pseudopotentials" / "pseudo-dojo-0.4-pbe"
    assert folder.is_dir(), "pw.x is installed without pseudopotentials; run make pseudopotentials"
    return folder
