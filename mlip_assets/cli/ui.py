"""``mlip ui``: the Dagster UI and daemon of a project."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mlip_assets.assets import LINEAGE_PATH
from mlip_assets.cli.project import ProjectError, set_environment

HOST = "127.0.0.1"


def start_ui(port: int) -> int:
    """Replace this process by ``dagster dev``, which starts the UI and the daemon.

    Raises
    ------
    ProjectError
        The working folder and ``DAGSTER_HOME`` have no ``workspace.yaml``.
    """
    home = set_environment()
    workspace = next(
        (file for folder in (Path.cwd(), home) if (file := folder / "workspace.yaml").is_file()),
        None,
    )
    if workspace is None:
        raise ProjectError(
            f"{Path.cwd() / 'workspace.yaml'} does not exist; change to a project folder, or write "
            "one with: mlip init my-project"
        )
    print(f"Dagster UI: http://{HOST}:{port}{LINEAGE_PATH} (Ctrl-C stops it)", flush=True)
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "dagster",
        "dev",
        "--workspace",
        str(workspace),
    ]
    os.execv(sys.executable, [*command, "--host", HOST, "--port", str(port)])  # noqa: S606 (no shell)
