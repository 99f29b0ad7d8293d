"""The documentation site: every page is in the menu, every public name in the reference."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import click
import pytest
import yaml
from story_pages import DOCS, Block, blocks

import evalkit
import mini_internvl
from evalkit.cli.main import cli

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
_PYPROJECT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
HOME = _PYPROJECT["project"]["urls"]["Homepage"]
PROJECT_PAGES = ("CHANGELOG", "CONTRIBUTING", "SECURITY")
OURS = ("evalkit", "mini_internvl")
#: A command, and what may stand before it: a prompt, variables, a launcher.
_LAUNCHER = r"srun (?:--\S+ )?|(?:torchrun|accelerate launch) .*(?:--no.python|-m) "
_COMMAND = re.compile(rf"(?:\$ |\w+\$ +)?(?:\w+=\S+ |{_LAUNCHER})*evalkit (.*)")


def test_every_page_is_in_the_menu() -> None:
    menu = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    assert sorted(re.findall(r": (\S+\.md)$", menu, re.MULTILINE)) == sorted(
        [*PAGES, *(f"{HOME}/blob/main/{name}.md" for name in PROJECT_PAGES)]
    )


@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_longer_than_patience(page: str) -> None:
    assert len((DOCS / page).read_text(encoding="utf-8").splitlines()) <= 430


def test_the_reference_has_every_public_name() -> None:
    text = "".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES if page.startswith("api/"))
    shown = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    for package in (evalkit, mini_internvl):
        errors = {name for name in package.__all__ if isinstance(getattr(package, name), type)
                  and issubclass(getattr(package, name), Exception)}  # fmt: skip
        missing = {f"{package.__name__}.{name}" for name in set(package.__all__) - errors} - shown
        assert not missing and f"{package.__name__}.errors" in shown


def python_blocks() -> Iterator[Any]:
    for page in PAGES:
        for number, block in enumerate(blocks(page)):
            if block.language == "python":
                yield pytest.param(block, id=f"{page}-{number}")


@pytest.mark.parametrize("block", list(python_blocks()))
def test_python_is_valid_and_imports_what_is_there(block: Block) -> None:
    indented = block.text.startswith("    ")
    tree = ast.parse(f"class _:\n{block.text}" if indented else block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(OURS):
            module = import_module(node.module)
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


@pytest.mark.parametrize("page", PAGES)
def test_data_and_settings_can_be_read(page: str) -> None:
    readers = {"json": json.loads, "toml": tomllib.loads, "yaml": lambda text: list(yaml.safe_load_all(text))}
    for block in blocks(page):
        if block.language in readers:
            readers[block.language](block.text)


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_the_flags_they_are_shown_with(page: str) -> None:
    for block in blocks(page):
        for line in block.text.replace("\\\n", " ").splitlines():
            found = _COMMAND.match(line.strip())
            if found is not None and block.language != "python" and "·" not in line:
                _parse(shlex.split(found.group(1).partition(" >")[0], comments=True))


def _parse(words: list[str]) -> None:
    """Read a command's flags as click does, and run nothing.

    Raises:
        click.UsageError: there is no such command or flag.
    """
    command: click.Command = cli
    context = click.Context(cli, info_name="evalkit")
    while isinstance(command, click.Group):
        if command.name == "train" and words[0] not in command.commands:
            words = ["run", *words]
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)
    command.make_parser(context).parse_args(words)
