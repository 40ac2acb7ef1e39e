"""Find words of the left column of the table "Words" in CONTRIBUTING.md: ``python scripts/check_words.py``.

A phrase is found across line breaks, and as part of an identifier: "blue whale" also finds
``blue_whale``. Exit status: 0 nothing found, 1 found.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "CONTRIBUTING.md"
HEADING = "## Words"
#: What is checked: files that git tracks, or would add.
CHECKED = (
    "*.py", "*.md", "*.yaml", "*.yml", "*.toml", "Makefile", ".importlinter", ".ci/run",
)  # fmt: skip
#: The table itself; the history of changes.
NOT_CHECKED = ("CONTRIBUTING.md", "CHANGELOG.md")
#: Stored names and first names of campaign keys, which cannot change.
STORED = ("known_share", "known_distance", "unsure_above")


def main() -> int:
    """Print each place where a word of the table is used."""
    words = read_words(TABLE.read_text(encoding="utf-8"))
    found = 0
    for file in checked_files():
        for line, word, instead in find_words(file.read_text(encoding="utf-8"), words):
            print(f"{file.relative_to(ROOT)}:{line}: {word!r}: {instead}")
            found += 1
    if found:
        print(f"{found} found; the table is in {TABLE.name}", file=sys.stderr)
    return 1 if found else 0


def read_words(text: str) -> dict[str, str]:
    """Word or phrase -> what to use, from the table below ``HEADING``."""
    section = text.split(f"\n{HEADING}\n")[1].split("\n## ", maxsplit=1)[0]
    words = {}
    for row in re.findall(r"^\| *([^|]+?) *\| *([^|]+?) *\|$", section, re.MULTILINE)[2:]:
        for word in row[0].split(","):
            words[word.strip()] = row[1]
    return words


def find_words(text: str, words: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    """Line number, word and what to use, for each place in a text."""
    for name in STORED:
        text = text.replace(name, "-" * len(name))
    for word, instead in words.items():
        between = r"(?:[ _]|\s*\n[ \t]*#?[ \t]*)"
        pattern = between.join(map(re.escape, word.split()))
        for match in re.finditer(rf"(?<![a-zäöü]){pattern}(?![a-zäöü])", text, re.IGNORECASE):
            yield text.count("\n", 0, match.start()) + 1, word, instead


def checked_files() -> list[Path]:
    """Text files of the repository, by name."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *CHECKED]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(
        file
        for name in set(listed.splitlines())
        if name not in NOT_CHECKED and (file := ROOT / name).is_file()
    )


if __name__ == "__main__":
    sys.exit(main())
