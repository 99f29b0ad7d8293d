"""Links of the pages lead somewhere, also where the README is read on a package index."""

from __future__ import annotations

import re
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


def test_the_readme_has_only_whole_addresses() -> None:
    found = list(links(REPOSITORY / "README.md"))
    assert found and not [link for link in found if not link.startswith(("https://", "#"))]


def test_one_address_of_the_project_stands_everywhere() -> None:
    names = (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("*.cff"), REPOSITORY / "pyproject.toml")
    folders = (".github", "docs", "examples", "check", "evalkit")
    texts = [path.read_text(encoding="utf-8") for path in names]
    texts += [
        path.read_text(encoding="utf-8")
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in (".md", ".yml", ".py")
    ]
    owner = HOME.removeprefix("https://github.com/").split("/")[0]
    assert {
        found
        for text in texts
        for found in re.findall(r"[\w-]+(?=/evalkit(?:/check@|\b/(?:blob|tree|issues|security)))", text)
    } == {owner}
