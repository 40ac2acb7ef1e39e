"""Atomic writing: a file is either complete under its final name or absent."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upath import UPath

_log = logging.getLogger(__name__)

AnyPath = str | os.PathLike[str] | UPath


def as_path(path: AnyPath) -> UPath:
    """Make a local path absolute; leave any other fsspec path (``s3://…``) as it is."""
    upath = UPath(path)
    return UPath(Path(str(upath)).absolute()) if is_local(upath) else upath


def is_local(path: UPath) -> bool:
    """Whether ``path`` is on the file system of this machine."""
    return path.protocol in ("", "file", "local")


@contextmanager
def write_atomically(path: AnyPath) -> Iterator[Path]:
    """Yield a temporary *local* path, whose content is moved to ``path`` when the block ends.

    On a local file system it is a hidden file in the same folder, fsynced and renamed over the
    target. Otherwise it is a local file, uploaded in one request. If the block raises, ``path`` is
    not changed and the temporary file is removed. The suffix is that of the target, because several
    writers choose their format by it.
    """
    target = as_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    local = is_local(target)
    handle, name = tempfile.mkstemp(
        dir=str(target.parent) if local else None, prefix=".writing-", suffix=target.suffix
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        if local:
            temporary.chmod(0o644)
            temporary.replace(str(target))
            fsync_folder(Path(str(target.parent)))
        else:
            target.fs.put_file(str(temporary), target.path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # as for a full disk
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: AnyPath, text: str) -> None:
    """Write a small text file atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def fsync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut; POSIX requires it, Windows cannot."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def local_copy(path: AnyPath) -> Iterator[Path]:
    """Yield ``path`` as a local file: itself, or a temporary download removed after the block."""
    source = as_path(path)
    if is_local(source):
        yield Path(str(source))
        return
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / source.name
        source.fs.get_file(source.path, str(target))
        yield target


@contextmanager
def locked(path: AnyPath, *, wait: bool, log_wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a local file; the system releases it when the process ends.

    Waiting for another process is logged if ``log_wait``.

    Raises
    ------
    BlockingIOError
        Another process holds it, and ``wait`` is false.
    """
    import fcntl  # POSIX only

    file = Path(str(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            if log_wait:
                _log.info("%s: waiting for another process", file)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sha256_of_file(path: AnyPath) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with UPath(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
