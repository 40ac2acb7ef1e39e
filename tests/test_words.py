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
    assert words["lone" + " atom"] == words["free" + " atom"]
    assert words["lone" + " atom"].startswith("isolated atom")
    assert "do not use" not in words


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a blue whale", 1),
        ("a Blue Whale.", 1),
        ("x\nblue_whale = 1", 2),
        ("def _blue_whale_energy():", 1),
        ("of the blue\n    whale", 1),
        ("    # of the blue\n    # whale", 1),
    ],
)
def test_find_words_finds_phrases_in_text_names_and_across_lines(check_words, text, line):
    words = {"blue whale": "animal"}
    assert list(check_words.find_words(text, words)) == [(line, "blue whale", "animal")]


@pytest.mark.parametrize(
    "text", ["blue whales", "careblue whale", "blue, whale", 'KEY = "known_share"']
)
def test_find_words_leaves_other_words_and_stored_names(check_words, text):
    words = {"blue whale": "animal", "known" + " share": "covered fraction"}
    assert list(check_words.find_words(text, words)) == []


def test_main_reports_file_line_and_replacement(check_words, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    monkeypatch.setattr(check_words, "ROOT", tmp_path)
    monkeypatch.setattr(check_words, "checked_files", lambda: [page])
    page.write_text("first\na free" + " atom\n", encoding="utf-8")
    assert check_words.main() == 1
    assert f"page.md:2: 'free{' '}atom': isolated atom" in capsys.readouterr().out
    page.write_text("isolated atom\n", encoding="utf-8")
    assert check_words.main() == 0
