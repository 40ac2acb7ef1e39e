"""README and docs: the Python in them compiles, imports and runs; the links in them lead somewhere.

A block after the comment ``<!-- run -->`` is run, in an empty folder; any other is compiled, and its
imports are made.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RUN = "<!-- run -->"
_BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<(?:img|a)\s[^>]*?(?:src|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of Python."""

    page: Path
    line: int
    code: str
    is_run: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def python_blocks() -> list[Block]:
    blocks = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            if match[2] != "python":
                continue
            before = text[: match.start()].rstrip()
            line = text[: match.start()].count("\n") + 1
            code = textwrap.dedent(match[3])
            blocks.append(Block(page, line, code, before.endswith(RUN)))
    return blocks


BLOCKS = python_blocks()


def test_pages_and_blocks_are_found():
    assert ROOT / "README.md" in PAGES
    assert any(block.is_run and block.page.name == "README.md" for block in BLOCKS)
    marks = sum(page.read_text(encoding="utf-8").count(RUN) for page in PAGES)
    assert marks == sum(block.is_run for block in BLOCKS), "a mark without a Python block after it"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_python_block_compiles_and_its_imports_resolve(block):
    tree = ast.parse(block.code, filename=str(block))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in BLOCKS if block.is_run], ids=str)
def test_marked_python_block_runs(block, tmp_path):
    script = tmp_path / "block.py"
    script.write_text(block.code, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", str(script)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_exist(page):
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for markdown, html in _LINK.findall(text):
        target, _, anchor = (markdown or html).partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(markdown or html)
    assert not broken


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    titles = _HEADING.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
