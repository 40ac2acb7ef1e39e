"""Durable writing: whole or not at all, here and on other file systems."""

import pytest
from upath import UPath

from mlip_assets.common.files import local_copy, sha256_of_file, write_atomically, write_text


def test_nothing_appears_when_the_writer_fails(tmp_path):
    target = tmp_path / "folder" / "value.txt"
    write_text(target, "first")
    with pytest.raises(RuntimeError, match="half way"), write_atomically(target) as temporary:
        temporary.write_text("second, half")
        raise RuntimeError("half way")
    assert target.read_text() == "first"
    assert [file.name for file in target.parent.iterdir()] == ["value.txt"]


def test_suffix_is_kept_because_writers_choose_by_it(tmp_path):
    with write_atomically(tmp_path / "array.npz") as temporary:
        assert temporary.suffix == ".npz"


def test_other_file_systems():
    target = UPath("memory://bucket/folder/value.txt")
    write_text(target, "hello")
    assert target.read_text() == "hello"
    with local_copy(target) as local:
        assert local.read_text() == "hello"
        assert sha256_of_file(local) == sha256_of_file(target)
