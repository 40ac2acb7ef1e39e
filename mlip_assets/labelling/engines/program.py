"""Engines that start an external program with pseudopotential files."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
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
        Command that starts the program, such as ``mpirun -np 4 pw.x``; empty for
        :attr:`default_command`, searched on PATH.
    default_command
        Of the class.
    install
        Of the class: how to install the program, for messages.
    """

    pseudopotentials: ElementFiles = field(default_factory=dict)
    command: str = ""

    default_command: ClassVar[str]
    install: ClassVar[str]

    @classmethod
    def _further_fields(
        cls, settings: LabellingSettings, elements: Collection[str]
    ) -> dict[str, Any]:
        if settings.pseudopotentials is None:
            raise EngineError(f"labelling.pseudopotentials is not set; {cls.name} needs a folder")
        return {
            "pseudopotentials": cls._find_files(Path(settings.pseudopotentials), elements),
            "command": settings.command or "",
        }

    @classmethod
    def _find_files(cls, folder: Path, elements: Collection[str]) -> ElementFiles:
        """The file of each element in a folder; of the subclass."""
        raise NotImplementedError

    @property
    def physics(self) -> dict[str, Any]:
        """The settings on which converged labels depend, with the SHA-256 of each file."""
        hashes = {symbol: sha256 for symbol, (_, sha256) in self.pseudopotentials.items()}
        return super().physics | {"pseudopotentials_sha256": hashes}

    def check(self, symbols: Collection[str]) -> None:
        """Raise :class:`EngineError` if the program or the file of an element is missing."""
        argument = shlex.split(self._command)[0]
        if shutil.which(argument) is None:
            raise EngineError(
                f"'{argument}' cannot be run: it is not installed, or not on PATH; {self.install}, "
                "or name the program in labelling.command"
            )
        check_unchanged(self.pseudopotentials, symbols)

    @property
    def _command(self) -> str:
        return self.command or self.default_command

    def _run(self, arguments: Sequence[str] = ()) -> int:
        """Run the program and return its exit status; :class:`KilledError` if a signal killed it."""
        with Path(self.output).open("wb") as output:
            status = subprocess.run(
                [*shlex.split(self._command), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                preexec_fn=partial(die_with_parent, os.getpid()),
            ).returncode
        number = -status if status < 0 else status - 128  # the exit status of a shell or mpirun
        if number in {signal.SIGKILL, signal.SIGTERM}:
            raise KilledError(f"{self.name} was killed by {signal.Signals(number).name}")
        return status


def text_of(file: str) -> str:
    """Content of a text file in the working folder; empty if the file is missing."""
    path = Path(file)
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
