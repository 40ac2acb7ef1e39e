"""Trainers of the tests as forks of one process that has imported mace-torch, which takes 8 s of CPU.

``python preloaded_trainer.py SOCKET PID OPTIONS...`` stands for ``python -m
mlip_assets.training.trainer.process OPTIONS...``. The first call starts the server at ``SOCKET``, which
ends with the process ``PID``. Each call sends its options, folder, environment and standard streams;
the server forks a trainer with them. A trainer whose call is killed kills itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


def main() -> None:
    """Train with the given options in a fork of the server; exit with its status."""
    address, owner, *options = sys.argv[1:]
    if options == ["--serve"]:
        serve(address, int(owner))
    request = {"options": options, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    with connect(address, owner) as connection:
        socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
        status = connection.makefile().read()
    sys.exit(int(status) if status else 1)


def connect(address: str, owner: str) -> socket.socket:
    """Connect to the server, which is started if there is none."""
    with Path(address + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not Path(address).exists():
            server = subprocess.Popen(
                [sys.executable, __file__, address, owner, "--serve"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                cwd="/",
                start_new_session=True,
            )
            next(line for line in server.stdout if line == "ready\n")
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    return connection


def serve(address: str, owner: int) -> None:
    """Fork a trainer for each connection until the owner ends."""
    import mace.cli.run_train  # noqa: F401

    from mlip_assets.training.trainer import process

    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # trainers that ended leave no zombies
    owner_ends = os.pidfd_open(owner)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([server, owner_ends], [], [])
        if owner_ends in ready:
            os._exit(0)
        connection, _ = server.accept()
        if os.fork() == 0:
            train(connection, process.main)
        connection.close()


def train(connection: socket.socket, main: Callable[[], None]) -> NoReturn:
    """Run the trainer with the request of a connection, and end this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 20)
    request = json.loads(text)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["options"]

    def end_with_call() -> None:
        connection.recv(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end_with_call, daemon=True).start()
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as at the top level of a program
        traceback.print_exc()
        status = 1
    connection.sendall(str(status).encode())
    os._exit(status)


if __name__ == "__main__":
    main()
