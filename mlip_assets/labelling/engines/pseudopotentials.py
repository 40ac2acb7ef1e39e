"""Pseudopotential files: found by name, identified by their SHA-256."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from pathlib import Path

from ase.data import atomic_numbers

from mlip_assets.labelling.engines.engine import EngineError

#: Symbol -> (absolute path, SHA-256).
ElementFiles = dict[str, tuple[str, str]]


def upf_files(folder: Path, elements: Collection[str]) -> ElementFiles:
    """The UPF file of each element: its name begins with the symbol, in upper or lower case.

    Examples for silicon: ``Si.upf``, ``si_pbe_v1.uspp.F.UPF`` and ``Si_ONCV_PBE-1.2.upf``.

    Raises
    ------
    EngineError
        An element has no file, or several; the message lists all such elements.
    """
    found: dict[str, list[Path]] = {symbol: [] for symbol in sorted(elements)}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        name = re.match(r"([a-z]{1,2})([._-].*)?\.upf$", file.name, re.IGNORECASE)
        if name and name[1].capitalize() in found:
            found[name[1].capitalize()].append(file)
    return _one_each(found, folder, "UPF file")


def potcar_files(folder: Path, elements: Collection[str]) -> ElementFiles:
    """The POTCAR of each element: ``<symbol>/POTCAR``, or the only ``<symbol>_…/POTCAR``.

    Raises
    ------
    EngineError
        An element has none, or several; the message lists all such elements.
    """
    found = {}
    for symbol in sorted(elements):
        plain = folder / symbol / "POTCAR"
        others = sorted(folder.glob(f"{symbol}_*/POTCAR"))
        found[symbol] = [plain] if plain.is_file() else others
    return _one_each(found, folder, "POTCAR")


def check_unchanged(files: ElementFiles, symbols: Collection[str]) -> None:
    """Raise :class:`EngineError` if a file is missing or has changed since it was found."""
    unknown = sorted(set(symbols) - set(files), key=atomic_numbers.__getitem__)
    if unknown:
        raise EngineError(
            f"the engine has no pseudopotential for {', '.join(unknown)}, because the composition of "
            "the campaign lacks it; add it there"
        )
    for symbol in sorted(set(symbols)):
        path, sha256 = files[symbol]
        if not Path(path).is_file() or _sha256(Path(path)) != sha256:
            raise EngineError(
                f"{path} has changed since the engine was created, or is missing; restore the file "
                f"with SHA-256 {sha256[:12]}…, or restart: other files have other labels"
            )


def _one_each(found: dict[str, list[Path]], folder: Path, kind: str) -> ElementFiles:
    problems = []
    missing = [symbol for symbol, files in found.items() if not files]
    if missing:
        problems.append(f"no {kind} for {', '.join(missing)}")
    problems += [
        f"several for {symbol} ({', '.join(str(file.relative_to(folder)) for file in files)})"
        for symbol, files in found.items()
        if len(files) > 1
    ]
    if problems:
        raise EngineError(
            f"labelling.pseudopotentials: {folder} has {'; '.join(problems)}; provide one file of "
            "one family for each element"
        )
    return {symbol: (str(file.absolute()), _sha256(file)) for symbol, (file,) in found.items()}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
