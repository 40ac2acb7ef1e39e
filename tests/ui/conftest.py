"""A real ``dg dev`` or daemon, in a new project folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import dagster as dg
import pytest
from playwright.sync_api import Browser, sync_playwright

REPOSITORY = Path(__file__).parents[2]
#: What a checkout has; campaigns, results and history are the test's own.
CHECKOUT = (
    "pyproject.toml", "dagster.yaml", "workspace.yaml", "mlip_assets", "resources", "io_managers",
)  # fmt: skip
#: How long a loaded machine of two cores may take to start Dagster or to make one tick.
PATIENCE_S = 180

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # structures and maps are drawn by WebGL, here in software
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Found = TypeVar("Found")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser; required in CI."""
    found = os.environ.get("MLIP_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        message = f"no browser: none of {', '.join(BROWSERS)} on PATH, and MLIP_CHROMIUM is not set"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(OPTIONS))
        yield browser
        browser.close()


@dataclass(frozen=True)
class Project:
    """A checkout of this repository in which nothing has been run."""

    folder: Path

    @property
    def campaigns(self) -> Path:
        return self.folder / "campaigns"

    def log_tail(self) -> str:
        """The last the started process has printed."""
        log = (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")
        return "… " + log[-4000:]

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """The instance that the commands write to."""
        with dg.DagsterInstance.from_config(str(self.folder)) as instance:
            yield instance

    def run(self, *command: str, **environment: str) -> None:
        """Run a command to its end."""
        subprocess.run(
            _installed(command),
            cwd=self.folder,
            env=self._environment() | environment,
            check=True,
            timeout=300,
        )

    @contextmanager
    def running(self, *command: str, **environment: str) -> Iterator[None]:
        """Start a command; at the end, stop it as Ctrl-C does, and whatever it has started."""
        with (self.folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                _installed(command),
                cwd=self.folder,
                env=self._environment() | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_heed_interrupts,  # noqa: PLW1509 (it takes no lock)
            )
        try:
            yield
        finally:
            _stop(process)

    def wait_for(
        self, find: Callable[[], Found], what: str, patience_s: float = PATIENCE_S
    ) -> Found:
        """Poll until ``find`` gives something; fail with the end of the log."""
        deadline = time.monotonic() + patience_s
        while not (found := find()):
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {patience_s:g} s\n{self.log_tail()}")
            time.sleep(0.5)
        return found

    def _environment(self) -> dict[str, str]:
        """What ``make`` exports; what the person running the tests has set does not leak in."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(("MLIP_", "DAGSTER_"))}
        return own | {"DAGSTER_HOME": str(self.folder), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def make_project() -> Callable[[Path, pytest.MonkeyPatch], Project]:
    """``make_project(folder, monkeypatch)``: a fresh project, as the current folder.

    The paths in dagster.yaml are relative to it.
    """

    def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
        for name in CHECKOUT:
            (folder / name).symlink_to(REPOSITORY / name)
        (folder / "campaigns").mkdir()
        monkeypatch.chdir(folder)
        return Project(folder)

    return make


@pytest.fixture
def project(make_project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A fresh project of one test."""
    return make_project(tmp_path, monkeypatch)


def _installed(command: tuple[str, ...]) -> list[str]:
    """The command as installed beside the Python that runs the tests."""
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]


def _heed_interrupts() -> None:
    """Undo what background jobs of a shell inherit: they, and their children, ignore these."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for how, patience_s in ((signal.SIGINT, 30), (signal.SIGKILL, 10)):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, how)
            process.wait(patience_s)
