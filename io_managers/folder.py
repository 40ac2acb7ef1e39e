"""Values that are a folder of files: the label database and the model."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from upath import UPath

from io_managers.base import TypedIOManager
from mlip_assets.files import is_local


class FolderIOManager(TypedIOManager):
    """Saves through the value's own ``save(folder)``; remote folders by way of a local one.

    The value writes each file whole, and its ``commit_file`` last: without that file the folder
    does not count.
    """

    suffix: ClassVar[str] = ""
    commit_file: ClassVar[str]

    @abstractmethod
    def save(self, value: Any, folder: Path) -> None:
        """Write the value's files below a local folder."""

    @abstractmethod
    def open(self, folder: Path) -> Any:
        """Read the value from a local folder."""

    def write(self, value: Any, path: UPath, contract: dict[str, Any]) -> None:
        """Save locally, or upload with the commit file last."""
        if is_local(path):
            self.save(value, Path(str(path)))
            return
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.save(value, folder)
            files = sorted(folder.iterdir(), key=lambda file: file.name == self.commit_file)
            for file in files:
                (path / file.name).write_bytes(file.read_bytes())

    def read(self, path: UPath) -> Any:
        """Open the folder.

        Raises
        ------
        FileNotFoundError
            The commit file is missing: the folder was never finished.
        """
        if not (path / self.commit_file).exists():
            raise FileNotFoundError(f"{path} has no {self.commit_file}; materialize it again")
        if is_local(path):
            return self.open(Path(str(path)))
        # Kept for the life of the process: the value refers to these files.
        folder = Path(tempfile.mkdtemp(prefix="mlip-"))
        for file in path.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return self.open(folder)
