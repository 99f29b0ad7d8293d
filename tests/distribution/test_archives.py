"""The wheel and the source archive hold what they should; scoring and comparing stay light."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

_LIGHT = """
import json, sys
from pathlib import Path
from evalkit.cli.main import invoke

for task in ("chartqa", "drivelm"):
    assert invoke(["export", "questions", task, "--split", "miniature", "-o", "questions.jsonl"]) == 0
    questions = Path("questions.jsonl").read_text(encoding="utf-8").splitlines()
    ids = [json.loads(line)["id"] for line in questions]
    lines = [json.dumps({"id": name, "text": "a red car"}) for name in ids]
    Path("answers.jsonl").write_text("\\n".join(lines))
    assert invoke(["run", "-m", "predictions:answers.jsonl", "-t", f"{task}@miniature", "-q"]) == 0
runs = [str(path.parent) for path in Path("runs").rglob("summary.json")]
for run in runs:
    assert invoke(["score", run, "-q"]) == 0
    assert invoke(["compare", run, run]) in (0, 5)
assert len(runs) == 2
heavy = {"torch", "transformers", "tokenizers", "duckdb", "streamlit", "matplotlib", "datasets"}
loaded = {name.partition(".")[0] for name in sys.modules}
print("heavy:", sorted(heavy & loaded))
"""

_OUTSIDE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import evalkit
from evalkit.cli.main import invoke
from evalkit.installation import install_command

print(json.dumps([evalkit.__file__, install_command("ray")]))
sys.exit(invoke(["list", "tasks", "-q"]))
"""


@pytest.mark.slow
def test_scoring_and_comparing_import_neither_torch_nor_transformers(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _LIGHT], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.slow
def test_both_archives_are_complete_and_the_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    """Built from a copy of what git holds; the wheel is made from the source archive, as an index would."""
    pytest.importorskip("build")
    if not (REPOSITORY / ".git").exists():
        pytest.skip("no git: the files of the source archive cannot be listed")
    names = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "-z"], capture_output=True, text=True, check=True
    ).stdout.split("\0")
    copy = tmp_path / "copy"
    tracked = [name for name in names if name and (REPOSITORY / name).is_file()]
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((REPOSITORY / name).read_bytes())
    dist = tmp_path / "dist"
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    (archive,) = dist.glob("*.tar.gz")
    assert archive.name.startswith("mini_internvl_evalkit-")
    with tarfile.open(archive) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    left_out = {".gitignore", ".gitattributes"}
    lost = [
        name for name in tracked if name not in held and name not in left_out and not name.startswith(".ci/")
    ]
    assert not lost, lost

    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        tops = {name.partition("/")[0] for name in file.namelist()}
        metadata = next(
            file.read(name).decode() for name in file.namelist() if name.endswith(".dist-info/METADATA")
        )
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        *("evalkit", "evalkit_tasks", "evalkit_models", "evalkit_leaderboard"),
        *("mini_internvl", "mini_internvl_train"),
    }
    assert not re.findall(r"\]\((?!https://|#).*?\)", metadata)  # the README, whose links are relative here
    assert metadata.count("Project-URL:") == 5 and "\nAuthor: " in metadata
    twine = [sys.executable, "-m", "twine", "check", "--strict", str(archive), str(wheel)]
    done = subprocess.run(twine, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(installed)
    outside = tmp_path / "outside"
    outside.mkdir()
    command = [sys.executable, "-c", _OUTSIDE, str(installed)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=outside)
    assert done.returncode == 0, done.stderr[-2000:]
    place, fix = json.loads(done.stdout.splitlines()[0])
    assert Path(place).is_relative_to(installed) and fix == "pip install 'mini-internvl-evalkit[ray]'"
    assert "drivelm" in done.stdout
