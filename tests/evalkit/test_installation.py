"""Messages and pages name a package and a command that work where they are read."""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import pytest

from evalkit import installation
from evalkit.cli.main import invoke
from evalkit_models import start

REPOSITORY = Path(__file__).resolve().parents[2]
#: `pip install evalkit`, also with an extra, a version, options and quotes: a stranger's library.
WRONG = re.compile(
    r"""(?:pip|uv|pipx)[^\n`|]{0,60}\b(?:install|add)\b[^\n`|;&]*[\s'"]evalkit(?:\[|[=<>~!'"`\s,]|$)"""
)
#: The extra alone, as one reads it in a sentence.
BARE = re.compile(r"(?<![\w-])evalkit\[")


def pages() -> list[Path]:
    roots = (
        "evalkit",
        "tasks",
        "models",
        "train",
        "leaderboard_app",
        "docs",
        ".github",
        "examples",
        "benchmarks",
    )
    found = [path for root in roots for path in (REPOSITORY / root).rglob("*")]
    found += [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml")]
    return [
        path
        for path in found
        if path.suffix in (".py", ".md", ".yml", ".yaml", ".toml", "") and path.is_file()
    ]


@pytest.mark.parametrize(
    "text",
    [
        "pip install evalkit",
        "pip install 'evalkit[leaderboard]'",
        'python -m pip install -U "evalkit"',
        "uv pip install evalkit==0.2.1",
        "pip install -c constraints.txt evalkit[train]",
    ],
)
def test_the_pattern_finds_the_wrong_form(text: str) -> None:
    assert WRONG.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install 'mini-internvl-evalkit[leaderboard]'",
        "pip install -e '.[leaderboard]'",
        "pip install -e '/home/me/evalkit[leaderboard]'",
        "git clone https://github.com/mini-internvl/evalkit && cd evalkit",
        "pip install torch; evalkit doctor",
    ],
)
def test_the_pattern_leaves_right_forms_alone(text: str) -> None:
    assert not WRONG.search(text) and not BARE.search(text.replace("/evalkit[", ""))


def test_no_page_and_no_message_names_the_strangers_package() -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{number} {line.strip()}"
        for path in pages()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if (WRONG.search(line) or BARE.search(line)) and "Do not install" not in line
    ]
    assert len(pages()) > 300 and not wrong, wrong


def test_the_command_of_a_checkout_works_where_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert installation.install_command("leaderboard") == "pip install -e '.[leaderboard]'"
    assert installation.fix_for("duckdb.core") == "pip install -e '.[leaderboard]'"
    assert installation.fix_for("yaml") == "pip install -e '.[train]'"
    monkeypatch.chdir(tmp_path)
    assert installation.install_command("ray") == f"pip install -e '{REPOSITORY}[ray]'"


@pytest.mark.parametrize("extra", installation.EXTRAS)
def test_the_command_of_a_wheel_names_the_distribution(
    extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installation, "_ROOT", tmp_path)  # site-packages
    assert installation.install_command(extra) == f"pip install 'mini-internvl-evalkit[{extra}]'"
    assert installation.install_command() == "pip install mini-internvl-evalkit"


def test_doctor_prints_the_command_of_each_missing_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installation, "_ROOT", tmp_path)
    monkeypatch.setattr(installation, "missing", lambda extra: list(installation.EXTRAS[extra]))
    invoke(["doctor", "-o", str(tmp_path)])
    shown = capsys.readouterr().out
    assert all(f"pip install 'mini-internvl-evalkit[{extra}]'" in shown for extra in installation.EXTRAS)


class Namesake(Distribution):
    """Metadata of the library that is called evalkit on the package index."""

    def read_text(self, filename: str) -> str | None:
        return "Name: evalkit\nVersion: 0.2.1\n" if filename in ("METADATA", "PKG-INFO") else None

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


def test_doctor_names_another_distribution_in_the_same_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installation, "distribution", lambda name: Namesake())
    assert invoke(["doctor", "-o", str(tmp_path)]) == 3
    shown = capsys.readouterr().out
    assert "evalkit 0.2.1 lies in evalkit/ too" in shown and "pip uninstall -y evalkit" in shown


def test_without_another_distribution_there_is_no_namesake(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(installation, "distribution", absent)
    assert installation.namesake() is None


@pytest.mark.parametrize("content", ['__version__ = "0.2.1"\n', "", "import not_installed_anywhere\n"])
def test_the_command_says_that_its_package_was_overwritten(
    content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evalkit").mkdir()
    (tmp_path / "evalkit" / "__init__.py").write_text(content)
    for name in [name for name in sys.modules if name.partition(".")[0] == "evalkit"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        start.main()
    message = capsys.readouterr().err
    assert ended.value.code == 3 and message.count("\n") == 1
    assert (
        f"{tmp_path / 'evalkit'}: another distribution" in message and "pip uninstall -y evalkit" in message
    )


def test_the_package_itself_is_not_taken_for_another() -> None:
    assert start.overwritten() is None
