"""The harness on Windows and macOS: POSIX modules hidden, links refused, paths of the other kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit import environment
from evalkit.comparison import baselines
from evalkit.engines import rank, ray_nodes
from evalkit.errors import UsageError
from evalkit.store import lock
from evalkit.store.folder import folder_name

REPOSITORY = Path(__file__).resolve().parents[2]

#: What Windows lacks, taken away before anything is imported.
_HIDDEN = """
import importlib, os, pkgutil, signal, sys
from pathlib import Path

for name in ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "posix_ipc"):
    sys.modules[name] = None
for name in "fork sched_getaffinity sysconf getuid geteuid killpg setsid statvfs".split():
    if hasattr(os, name):
        delattr(os, name)
for name in "SIGKILL SIGHUP SIGALRM SIGUSR1 SIGUSR2 SIGCHLD SIGPIPE alarm pthread_sigmask".split():
    if hasattr(signal, name):
        delattr(signal, name)

opened, read = os.open, Path.read_text
def no_folders(path, *rest, **more):
    if not isinstance(path, int) and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return opened(path, *rest, **more)
def no_links(*_, **__):
    raise OSError(1314, "A required privilege is not held by the client")
os.open, os.symlink, Path.symlink_to = no_folders, no_links, no_links
"""

_IMPORT = (
    _HIDDEN
    + """
import evalkit, evalkit_tasks, evalkit_models
for package in (evalkit, evalkit_tasks, evalkit_models):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print("imported")
"""
)

_RUN = (
    _HIDDEN
    + """
from evalkit.cli.main import invoke
import json, pandas
output, answers = sys.argv[1:]
task = ["-t", "chartqa@miniature", "-o", output]
assert invoke(["export", "questions", "chartqa", "--split", "miniature", "-o", answers + ".questions"]) == 0
with open(answers + ".questions", encoding="utf-8") as file, open(answers, "w", encoding="utf-8") as out:
    for line in file:
        out.write(json.dumps({"id": json.loads(line)["id"], "text": "7"}) + "\\n")
for _ in range(2):
    assert invoke(["run", "-m", "predictions:" + answers, *task, "-q"]) == 0
runs = sorted(str(path.parent) for path in Path(output).rglob("summary.json"))
assert len(runs) == 1, runs  # the second resumed
assert invoke(["score", runs[0], "-q"]) == 0
assert invoke(["show", runs[0]]) == 0
assert invoke(["baseline", "set", "first", runs[0], "-o", output]) == 0
assert invoke(["compare", runs[0], runs[0], "-o", output]) in (0, 5)
print("ran")
"""
)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "said"), [(_IMPORT, "imported"), (_RUN, "ran")], ids=["import", "run"])
def test_the_harness_needs_nothing_that_windows_lacks(code: str, said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", code, str(tmp_path / "runs"), str(tmp_path / "answers.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0 and done.stdout.endswith(f"{said}\n"), done.stderr[-3000:]


def test_a_lock_is_seen_without_fcntl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert not lock.is_held(tmp_path)
    with lock.held(tmp_path):
        assert lock.is_held(tmp_path)
    assert not lock.is_held(tmp_path)


def test_a_baseline_written_on_windows_is_read(tmp_path: Path) -> None:
    folder = tmp_path / baselines.FOLDER
    folder.mkdir()
    run = {"task": "chartqa", "split": "test", "model": "m", "signature": "s", "summary_sha256": "0"}
    run["run"] = "..\\m\\chartqa@test\\20260101-000000-abc"
    (folder / "main.json").write_text(json.dumps({"name": "main", "created": "now", "runs": [run]}))
    (found,) = baselines.load(tmp_path, "main").runs
    assert found.path == tmp_path / "m" / "chartqa@test" / "20260101-000000-abc"


def test_a_baseline_stores_paths_with_slashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert baselines._relative(tmp_path / "m" / "run", tmp_path / "baselines") == "../m/run"

    def other_drive(*_: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(baselines.os.path, "relpath", other_drive)
    assert baselines._relative(tmp_path / "m", tmp_path / "b") == (tmp_path / "m").as_posix()


@pytest.mark.parametrize(
    "name", ["C:\\models\\mine", "predictions:D:\\a b\\x.jsonl", "CON", "nul.", "a<b>?*|\"'"]
)
def test_a_models_folder_is_a_name_that_windows_takes(name: str) -> None:
    made = folder_name(name)
    assert not set(made) & set('<>:"/\\|?*') and made.rstrip(". ") == made
    assert made.partition(".")[0].upper() not in ("CON", "PRN", "AUX", "NUL")


def test_what_windows_does_not_support_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "is_windows", lambda: True)
    with pytest.raises(UsageError, match="--engine ray is not supported on Windows"):
        ray_nodes.import_ray()
    with pytest.raises(UsageError, match="several ranks are not supported on Windows: give --no-ranks"):
        rank.from_environment({"RANK": "0", "WORLD_SIZE": "2"})
    assert rank.from_environment({"RANK": "0", "WORLD_SIZE": "1"}) is None
