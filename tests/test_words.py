"""The check of words (``make words``): its table, and what it finds."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def check_words():
    spec = importlib.util.spec_from_file_location(
        "check_words", ROOT / "scripts" / "check_words.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_read_words_reads_the_table_of_contributing(check_words):
    words = check_words.read_words((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(words) >= 50
    assert words["known distance"] == words["known share"] == "covered fraction, coverage radius"
    assert "do not use" not in words


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a free atom", 1),
        ("a Free Atom.", 1),
        ("x\nfree_atom = 1", 2),
        ("def _free_atom_energy():", 1),
        ("of the free\n    atom", 1),
        ("    # of the free\n    # atom", 1),
    ],
)
def test_find_words_finds_phrases_in_text_names_and_across_lines(check_words, text, line):
    words = {"free atom": "isolated atom"}
    assert list(check_words.find_words(text, words)) == [(line, "free atom", "isolated atom")]


@pytest.mark.parametrize(
    "text", ["free atomic", "carefree atom", "free, atom", 'KEY = "free_atom"  # words: stored']
)
def test_find_words_leaves_other_words_and_stored_names(check_words, text):
    assert list(check_words.find_words(text, {"free atom": "isolated atom"})) == []


def test_main_reports_file_line_and_replacement(check_words, tmp_path, monkeypatch, capsys):
    (tmp_path / "page.md").write_text("first\nfree atom\n", encoding="utf-8")
    monkeypatch.setattr(check_words, "ROOT", tmp_path)
    monkeypatch.setattr(check_words, "checked_files", lambda: [tmp_path / "page.md"])
    assert check_words.main() == 1
    assert "page.md:2: 'free atom': isolated atom" in capsys.readouterr().out
    (tmp_path / "page.md").write_text("isolated atom\n", encoding="utf-8")
    assert check_words.main() == 0
