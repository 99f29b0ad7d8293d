"""Links of the pages lead somewhere, on a package index too; the project has one address."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HOME = PROJECT["urls"]["Homepage"]
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / ".github").rglob("*.md")]
)


def links(page: Path) -> Iterator[str]:
    """Targets of the links and images outside of code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"`[^`\n]*`", "", text)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    dead = []
    for link in links(page):
        ours = re.match(rf"{HOME}/(?:blob|tree|raw)/main/([^#]+)", link)
        if ours is not None:
            place = REPOSITORY / ours.group(1)
        elif link.startswith(("http://", "https://", "mailto:", "#")):
            continue
        else:
            place = page.parent / link.partition("#")[0]
        if not place.exists():
            dead.append(link)
    assert not dead


def test_the_readme_has_only_whole_links_on_an_index() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    whole = runpy.run_path(str(REPOSITORY / "setup.py"))["whole_links"](readme, HOME)
    shown = re.findall(r"\]\(([^)\s]+)\)", whole)
    assert len(shown) == len(re.findall(r"\]\(", readme))
    assert not [link for link in shown if not link.startswith(("https://", "#"))]
    assert {f"{HOME}/blob/main/docs/install.md", f"{HOME}/blob/main/CONTRIBUTING.md"} <= set(shown)
    assert re.search(rf"!\[[^\]]*\]\({HOME}/raw/main/docs/images/", whole)


def test_no_other_address_of_the_project_stands_anywhere() -> None:
    """Each mention of a repository or a site called evalkit is that of pyproject.toml's urls."""
    owner = HOME.removeprefix("https://github.com/").removesuffix("/evalkit")
    pattern = r"github\.com[/:]([\w-]+)/evalkit\b|([\w-]+)\.github\.io/evalkit\b|([\w-]+)/evalkit/check@"
    found = {}
    for path in mentions():
        for match in re.finditer(pattern, path.read_text(encoding="utf-8")):
            found[next(filter(None, match.groups()))] = str(path)
    assert found.keys() == {owner}, found


def mentions() -> Iterator[Path]:
    """Files that a reader sees or a machine follows."""
    yield from (path for path in REPOSITORY.iterdir() if path.suffix in (".md", ".cff", ".toml", ".yml"))
    code = ("benchmarks", "evalkit", "leaderboard_app", "models", "tasks", "train")
    for folder in (".github", "check", "docs", "examples", *code):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.suffix in (".md", ".yml", ".yaml", ".py", ".toml", ".ipynb"):
                yield path
