"""The Dockerfile as far as it can be checked without a container runtime; a job of CI builds it."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from evalkit_leaderboard.cli import leaderboard

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "leaderboard_app/Dockerfile"
PACKAGES = ("leaderboard_app/evalkit_leaderboard", "tasks/evalkit_tasks", "evalkit")
#: Programs of Debian's base system and of the image of Python.
BASE = {"pip", "useradd"}


def instructions() -> list[tuple[str, str]]:
    """Name and words of each instruction."""
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text(encoding="utf-8"))
    lines = [line.partition(" ") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, words.strip()) for name, _, words in lines]


def of(name: str) -> list[str]:
    """Words of the instructions of a name."""
    return [words for found, words in instructions() if found == name]


@cache
def installed() -> set[str]:
    """Packages that are installed, and what they need."""
    commands = [shlex.split(part) for words in of("RUN") for part in words.split("&&")]
    named = [word for words in commands if words[:2] == ["pip", "install"] for word in words[2:]]
    wanted = [word for word in named if re.fullmatch(r"[a-z][a-z0-9-]*", word)]
    found: set[str] = set()
    while wanted:
        name = canonical(wanted.pop())
        if name not in found:
            found.add(name)
            needs = metadata.requires(name) or []
            wanted += [re.match(r"[\w.-]+", one)[0] for one in needs if "extra ==" not in one]  # type: ignore[index]
            wanted = [one for one in wanted if _is_here(one)]
    return found


@cache
def distributions() -> Mapping[str, list[str]]:
    """Packages by the modules that they bring."""
    return metadata.packages_distributions()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_here(name: str) -> bool:
    """Whether it is installed; what other systems need is not."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_what_it_copies_is_here_and_in_the_source_archive() -> None:
    kept = (REPOSITORY / "MANIFEST.in").read_text()
    assert "include leaderboard_app/Dockerfile" in kept and "constraints.txt" in kept
    sources = [source for words in of("COPY") for source in words.split()[:-1]]
    assert {"evalkit", "leaderboard_app", "pyproject.toml"} <= set(sources)
    assert [source for source in sources if not (REPOSITORY / source).exists()] == []


def test_what_it_runs_is_there() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    ran = {shlex.split(part)[0] for words in of("RUN") for part in words.split("&&")}
    assert ran <= BASE
    (command,) = (ast.literal_eval(words) for words in of("CMD"))
    assert command[0] in project["scripts"] and command[1] == "leaderboard"
    flags = {flag for option in leaderboard.params for flag in option.opts}
    assert {word for word in command if word.startswith("--")} <= flags
    assert of("EXPOSE") == [command[command.index("--port") + 1]]
    (user,) = of("USER")
    assert any(shlex.split(words)[0] == "useradd" and words.endswith(f" {user}") for words in of("RUN"))
    version = of("FROM")[0].partition(":")[2].partition("-")[0]
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_it_pins_every_package_that_it_names() -> None:
    pinned = {
        canonical(line.partition("==")[0])
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
    }
    (named,) = (words.partition("constraints.txt ")[2].split() for words in of("RUN") if "pip" in words)
    assert [name for name in named if canonical(name) not in pinned] == []


def imported(path: Path, everywhere: bool) -> Iterator[str]:
    """Modules that a file imports; `everywhere` inside functions and conditions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_it_installs_what_the_app_imports(package: str) -> None:
    """All that the app and the tasks import, and what the core needs before it knows what is wanted."""
    providers, held = distributions(), installed()
    missing = {
        (str(path.relative_to(REPOSITORY)), module)
        for path in (REPOSITORY / package).rglob("*.py")
        for module in {name.partition(".")[0] for name in imported(path, everywhere=package != "evalkit")}
        if module not in sys.stdlib_module_names and not module.startswith(("evalkit", "mini_internvl"))
        if not {canonical(name) for name in providers.get(module, ())} & held
    }
    assert not missing
