"""``mlip ui`` in a project that ``mlip init`` has written."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from mlip_assets.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.daemon, pytest.mark.timeout(400)]

MAX_START_S = 180
QUERY = """{
  workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } }
  instance { daemonHealth { allDaemonStatuses { daemonType healthy } } }
  partitionSets: assetNodes { assetKey { path } partitionKeys }
}"""


def test_ui_serves_a_new_project_and_runs_its_daemon(tmp_path):
    assert main(["init", str(tmp_path / "project")]) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLIP_", "DAGSTER_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "mlip_assets", "ui", "--port", str(port)],
        cwd=tmp_path / "project",
        env=kept,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + MAX_START_S
        while not _has_partition(answer := _graphql(port), "silicon"):
            assert process.poll() is None
            assert time.monotonic() < deadline, answer
            time.sleep(1)
        assert answer["workspaceOrError"]["locationEntries"] == [
            {"name": "mlip_assets", "loadStatus": "LOADED"}
        ]
        statuses = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
        assert {"daemonType": "SENSOR", "healthy": True} in statuses
        assert (tmp_path / "project" / "history").is_dir()
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _has_partition(answer: dict | None, name: str) -> bool:
    """Whether the daemon's sensor has added the campaign."""
    nodes = (answer or {}).get("partitionSets", [])
    return any(name in node["partitionKeys"] for node in nodes)


def _graphql(port: int) -> dict | None:
    """Answer of the server; None while it starts."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": QUERY}).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["data"]
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return None
