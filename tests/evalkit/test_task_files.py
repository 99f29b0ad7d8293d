"""`--include` of a file with helpers beside it, a folder and a package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from toy import FakeFamily, make_benchmark, task_source

from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.comparison import policy
from evalkit.errors import UsageError
from evalkit_models.predictions import FAMILY

HELPER = """
    def norm(text):
        return text.strip().rstrip(".").lower()
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_included", {})


def place(folder: Path, start: str = "from shared_bits import norm", name: str = "yes-no") -> Path:
    """A task file that imports a helper beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shared_bits.py").write_text(dedent(HELPER))
    source = task_source().replace('response.text.strip().rstrip(".").lower()', "norm(response.text)")
    assert "norm(response.text)" in source
    file = folder / f"{name.replace('-', '_')}.py"
    file.write_text(f"{start}\n{source}".replace('"yes-no"', f'"{name}"'))
    return file


@pytest.mark.parametrize("start", ["from shared_bits import norm", "from .shared_bits import norm"])
def test_helpers_beside_a_file(start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_benchmark(tmp_path / "data")
    file = place(tmp_path / "code", start)
    monkeypatch.setattr(registry, "families", lambda: (FakeFamily(),))
    command = ["run", "--include", str(file), "-m", "fake", "-t", "yes-no", "-q"]
    assert invoke([*command, "--data-root", str(tmp_path / "data"), "-o", str(tmp_path / "runs")]) == 0
    (manifest,) = tmp_path.glob("runs/*/*/*/manifest.json")
    named = [entry["path"] for entry in json.loads(manifest.read_text())["includes"]]
    assert named == [str(file), str(file.parent / "shared_bits.py")]


def test_a_folder_and_a_package(tmp_path: Path) -> None:
    place(tmp_path / "folder", name="one")
    place(tmp_path / "folder", "from .shared_bits import norm", name="two")
    assert sorted(registry.include(tmp_path / "folder")) == ["one", "two"]
    place(tmp_path / "package" / "deep", "from ..shared_bits import norm", name="three")
    place(tmp_path / "package", "from package.shared_bits import norm", name="four")
    for folder in (tmp_path / "package", tmp_path / "package" / "deep"):
        (folder / "__init__.py").write_text("")
    assert sorted(registry.include(tmp_path / "package")) == ["four", "three"]
    assert registry.include(tmp_path / "package" / "deep" / "three.py") == ["three"]
    names = [file.name for file in registry.included_files()]
    assert names == ["one.py", "two.py", "three.py", "four.py"]


def test_helpers_of_one_name_in_two_folders(tmp_path: Path) -> None:
    first, second = place(tmp_path / "a", name="first"), place(tmp_path / "b", name="second")
    (tmp_path / "b" / "shared_bits.py").write_text("def norm(text):\n    return 'b'\n")
    registry.include(first)
    registry.include(second)
    from evalkit.contracts import Response, Sample

    sample = Sample("1", ("?",), (), "yes", "1")
    scored = {n: registry.task(n).score(sample, Response(" YES.")).prediction for n in ("first", "second")}
    assert scored == {"first": "yes", "second": "b"}
    first.write_text(first.read_text().replace('"first"', '"renamed"'))  # a file may change
    assert registry.include(first) == ["renamed"]


def test_what_cannot_be_included_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        registry.include(tmp_path / "none")
    with pytest.raises(UsageError, match="without Python files"):
        registry.include(tmp_path)
    (tmp_path / "helper.py").write_text("x = 1\n")
    with pytest.raises(UsageError, match="defines no Task"):
        registry.include(tmp_path)
    (tmp_path / "broken.py").write_text("import nowhere_at_all\n")
    with pytest.raises(UsageError, match="ModuleNotFoundError: No module named 'nowhere_at_all'"):
        registry.include(tmp_path / "broken.py")


@pytest.mark.parametrize("value", ['"code/yes_no.py"', '["code"]'])
def test_a_policy_names_its_task_files(value: str, tmp_path: Path) -> None:
    place(tmp_path / "code")
    file = tmp_path / "evalkit.toml"
    file.write_text(f'baseline = "main"\ntasks = ["yes-no"]\ninclude = {value}\n')
    policy.load(file)
    assert registry.included_tasks() == ["yes-no"]


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in a folder with data and a task file; every command is a process of its own."""
    make_benchmark(tmp_path / "data")
    place(tmp_path / "code")
    monkeypatch.setattr(registry, "families", lambda: (FakeFamily(), FAMILY))
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*command: str) -> int:
        registry._included.clear()
        return invoke(list(command))

    return call


RUN = ("run", "-t", "yes-no", "--data-root", "data", "-q", "--include", "code/yes_no.py", "-m")


@pytest.fixture
def baseline(user: Callable[..., int], tmp_path: Path) -> str:
    """A baseline of the task, set with `--include`; another model's answers beside it."""
    rows = [{"id": number, "text": "Yes"} for number in range(20)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert user(*RUN, "fake") == 0
    assert user("baseline", "set", "release", "fake", "--include", "code/yes_no.py") == 0
    return "release"


def test_a_baseline_remembers_its_task_files(
    user: Callable[..., int], baseline: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert user(*RUN, "predictions:p.jsonl") == 0
    capsys.readouterr()
    assert user("compare", baseline, "predictions:p.jsonl", "--json", "--allow", "dtype") in (0, 1, 5)
    assert json.loads(capsys.readouterr().out)["metrics"][0]["task"] == "yes-no"
    (tmp_path / "evalkit.toml").write_text(
        'baseline = "release"\ntasks = ["yes-no"]\n[run]\ndata-root = "data"\n'
    )
    assert user("check", "-m", "fake", "--undecided", "pass") == 0
    capsys.readouterr()
    assert user("baseline", "show", baseline, "--json") == 0
    assert json.loads(capsys.readouterr().out)["includes"] == [str(tmp_path / "code" / "yes_no.py")]


@pytest.mark.parametrize("file", ["yes_no.py", "shared_bits.py"])
def test_a_remembered_file_that_has_changed_is_not_imported(
    file: str, user: Callable[..., int], baseline: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "code" / file
    path.write_text(f"{path.read_text()}\nopen('ran', 'w')\n")
    assert user("compare", baseline, "fake") == 2
    told = capsys.readouterr().err
    assert f"{path}, which its tasks come from, has changed" in told and "--include" in told
    assert not (tmp_path / "ran").exists()
    assert user("compare", baseline, "fake", "--include", "code/yes_no.py") in (0, 2, 5)


def test_a_baseline_of_somebody_else_imports_nothing(
    user: Callable[..., int],
    baseline: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "mine"))
    assert user("compare", baseline, "fake") == 2
    assert "if you trust it, give --include" in capsys.readouterr().err
    assert user("compare", baseline, "fake", "--include", "code/yes_no.py") in (0, 5)


def test_a_run_is_reproduced_with_its_helpers(
    user: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": number, "text": "Yes"} for number in range(20)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert user(*RUN, "predictions:p.jsonl") == 0
    (path,) = (found.parent for found in tmp_path.glob("runs/*/*/*/manifest.json"))
    again = ("reproduce", str(path), "--data-root", "data", "--include", "code/yes_no.py")
    assert user(*again) == 0
    assert "another state of" not in capsys.readouterr().err
    helper = tmp_path / "code" / "shared_bits.py"
    helper.write_text("def norm(text):\n    return 'no'\n")
    assert user(*again, "-o", "again") == 1
    assert f"another state of {helper}" in capsys.readouterr().err
