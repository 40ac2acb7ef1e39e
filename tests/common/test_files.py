"""Atomic writing on local and other file systems."""

import pytest
from upath import UPath

from mlip_assets.common.files import local_copy, sha256_of_file, write_atomically, write_text


def test_write_atomically_leaves_nothing_after_an_error(tmp_path):
    target = tmp_path / "folder" / "value.txt"
    write_text(target, "first")
    with pytest.raises(RuntimeError, match="half way"), write_atomically(target) as temporary:
        temporary.write_text("second, half")
        raise RuntimeError("half way")
    assert target.read_text() == "first"
    assert [file.name for file in target.parent.iterdir()] == ["value.txt"]


def test_write_atomically_keeps_suffix(tmp_path):
    with write_atomically(tmp_path / "array.npz") as temporary:
        assert temporary.suffix == ".npz"


def test_write_atomically_supports_other_file_systems():
    target = UPath("memory://bucket/folder/value.txt")
    write_text(target, "hello")
    assert target.read_text() == "hello"
    with local_copy(target) as local:
        assert local.read_text() == "hello"
        assert sha256_of_file(local) == sha256_of_file(target)
