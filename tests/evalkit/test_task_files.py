"""`--include` of a file with helpers beside it, a folder and a package."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest
from toy import FakeFamily, make_benchmark, task_source

from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.comparison import policy
from evalkit.errors import UsageError

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
    assert [entry["path"] for entry in json.loads(manifest.read_text())["includes"]] == [str(file)]


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
