"""Engines that are programs of their own, started by a command and fed with files of the elements."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mlip_assets.campaign import LabellingSettings
from mlip_assets.common.processes import die_with_parent
from mlip_assets.labelling.engines.engine import EngineError, KilledError
from mlip_assets.labelling.engines.plane_waves import PlaneWaveEngine
from mlip_assets.labelling.engines.pseudopotentials import ElementFiles, check_unchanged


@dataclass(frozen=True)
class ProgramEngine(PlaneWaveEngine):
    """A plane-wave program with its pseudopotentials.

    Attributes
    ----------
    pseudopotentials
        File and SHA-256 for each element; the hashes are part of :attr:`physics`.
    command
        How to start the program, such as ``mpirun -np 4 pw.x``; empty: the usual one, on PATH.
    """

    pseudopotentials: ElementFiles = field(default_factory=dict)
    command: str = ""

    usual_command: ClassVar[str]
    #: What to do when it is not found.
    install: ClassVar[str]

    @classmethod
    def _own(cls, settings: LabellingSettings, elements: Collection[str]) -> dict[str, Any]:
        if settings.pseudopotentials is None:
            raise EngineError(f"labelling.pseudopotentials is not set; {cls.name} needs a folder")
        return {
            "pseudopotentials": cls._find(Path(settings.pseudopotentials), elements),
            "command": settings.command or "",
        }

    @classmethod
    def _find(cls, folder: Path, elements: Collection[str]) -> ElementFiles:
        raise NotImplementedError

    @property
    def physics(self) -> dict[str, Any]:
        """What decides the numbers, with the SHA-256 of each element's file."""
        hashes = {symbol: sha256 for symbol, (_, sha256) in self.pseudopotentials.items()}
        return super().physics | {"pseudopotentials_sha256": hashes}

    def check(self, symbols: Collection[str]) -> None:
        """Raise :class:`EngineError` unless the program and data for all elements are here."""
        argument = shlex.split(self._command)[0]
        if shutil.which(argument) is None:
            raise EngineError(
                f"'{argument}' cannot be run: it is not installed, or not on PATH; {self.install}, "
                "or name the program in labelling.command"
            )
        check_unchanged(self.pseudopotentials, symbols)

    @property
    def _command(self) -> str:
        return self.command or self.usual_command

    def _run(self, arguments: Sequence[str] = ()) -> int:
        """Exit status of the program; it has died of no signal, or :class:`KilledError` is raised."""
        with Path(self.output).open("wb") as output:
            status = subprocess.run(
                [*shlex.split(self._command), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                preexec_fn=_not_orphaned(os.getpid()),
            ).returncode
        number = -status if status < 0 else status - 128  # a shell or mpirun tells it so
        if number in {signal.SIGKILL, signal.SIGTERM}:
            raise KilledError(f"{self.name} died of {signal.Signals(number).name}")
        return status


def _not_orphaned(parent: int) -> Any:
    return lambda: die_with_parent(parent)


def text_of(file: str) -> str:
    """What a text file in the working folder holds; nothing where it is missing."""
    path = Path(file)
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
