"""A wheel in an empty environment, outside of the checkout: the main job, then the extras one by one.

    python tests/distribution/smoke.py dist/*.whl [--extras train,video] [--without-torch]

Needs nothing but Python and a package index. `--without-torch` installs by the commands of docs/install.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
#: What an extra is for: a module that only it brings, and a command that imports it.
PROBES = {
    "api": ["python", "-c", "import openai, evalkit.openai_sdk"],
    "leaderboard": ["evalkit", "leaderboard", "--help"],
    "ray": ["python", "-c", "import ray, evalkit.engines.ray_nodes"],
    "train": ["evalkit", "train", "--help"],
    "video": ["python", "-c", "import av, evalkit.data.images"],
}


class Place:
    """An empty folder with an environment of its own."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "env", with_pip=True)
        self.bin = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
        self.work = folder / "work"
        self.work.mkdir()
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EVALKIT"))
        }
        self.variables = {**kept, "EVALKIT_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hub")}
        self.variables["PATH"] = f"{self.bin}{os.pathsep}{kept.get('PATH', '')}"

    def run(self, *command: str, expected: tuple[int, ...] = (0,)) -> str:
        """Output of a command.

        Raises:
            SystemExit: another exit status.
        """
        started = time.perf_counter()
        suffix = ".exe" if os.name == "nt" else ""
        program = self.bin / f"{command[0]}{suffix}"
        done = subprocess.run(
            [str(program), *command[1:]], cwd=self.work, env=self.variables, capture_output=True, text=True
        )
        print(f"{time.perf_counter() - started:6.1f} s  {' '.join(command)[:100]}", flush=True)
        if done.returncode not in expected:
            raise SystemExit(f"status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout if 0 in expected else done.stderr


def commands_without_torch(wheel: Path) -> list[list[str]]:
    """Arguments of the `pip` lines under the heading "Without torch"; the wheel takes the package's place."""
    page = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8").partition("## Without torch")[2]
    block = re.search(r"```\n(.*?)```", page, re.S)
    assert block is not None, "docs/install.md lists no commands"
    lines = [line.split()[1:] for line in block.group(1).splitlines() if line.startswith("pip ")]
    assert len(lines) == 2, lines
    return [[str(wheel) if word == "mini-internvl-evalkit" else word for word in line] for line in lines]


def score_stored_answers(place: Place, task: str) -> None:
    """Questions out, answers in, scored again, compared; the second file has one more right answer."""
    split = f"{task}@miniature"
    place.run("evalkit", "export", "questions", task, "--split", "miniature", "-o", "questions.jsonl")
    ids = [
        json.loads(line)["id"]
        for line in (place.work / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for name, text in (("base", "7"), ("new", "a red car")):
        lines = [json.dumps({"id": identity, "text": text}) for identity in ids]
        (place.work / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        document = place.run("evalkit", "run", "-m", f"predictions:{name}.jsonl", "-t", split, "--json")
        (run,) = json.loads(document)["runs"]
        assert run["status"] == "complete" and run["counts"]["answered"] == len(ids), run
        place.run("evalkit", "score", run["run"])
        place.run("evalkit", "show", run["run"])
    place.run("evalkit", "compare", "predictions:base.jsonl", "predictions:new.jsonl", expected=(0, 1, 5))


def check_the_command(place: Place) -> None:
    """The version, the help, and the line for a missing extra, with the package's name on the index."""
    print(place.run("evalkit", "--version").strip())
    started = time.perf_counter()
    assert "Commands:" in place.run("evalkit", "--help")
    print(f"`evalkit --help` takes {time.perf_counter() - started:.2f} s")
    said = place.run("evalkit", "leaderboard", expected=(2,))
    assert "pip install" in said and "mini-internvl-evalkit[leaderboard]" in said and said.count("\n") == 1, (
        said
    )


def main() -> None:
    """Run it; ends with status 0 if everything works."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--extras", default="", help="comma list")
    parser.add_argument("--without-torch", action="store_true")
    given = parser.parse_args()
    wheel = given.wheel.resolve()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Place(Path(folder))
        if given.without_torch:
            for arguments in commands_without_torch(wheel):
                place.run("python", "-m", "pip", *arguments)
            place.run("python", "-c", "import torch", expected=(1,))
        else:
            place.run("python", "-m", "pip", "install", "-c", str(REPOSITORY / "constraints.txt"), str(wheel))
        check_the_command(place)
        for task in ("chartqa", "drivelm"):
            score_stored_answers(place, task)
        if not given.without_torch:
            place.run("evalkit", "doctor")
            main_job = ("-m", "mini-internvl-tiny", "-t", "drivelm", "--split", "miniature")
            place.run("evalkit", "run", *main_job, "--limit", "4")
        for extra in filter(None, given.extras.split(",")):
            place.run("python", "-m", "pip", "install", f"{wheel}[{extra}]")
            place.run(*PROBES[extra])
    print("all of it works")


if __name__ == "__main__":
    sys.exit(main())
