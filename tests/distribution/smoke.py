"""A wheel in an empty environment, outside of the checkout: the main job, then the extras one by one.

    python tests/distribution/smoke.py dist/*.whl [--extras train,video] [--without-torch] [--drivelm DIR]

Needs nothing but Python and a package index. Each extra is installed alone, in an environment of its own that
sees the default one's packages. `--without-torch` installs by the commands of docs/install.md. With
`--drivelm`, a folder with the challenge's sample, the README's predictions are scored too.
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
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class Place:
    """A folder with an environment of its own, and one to work in.

    Args:
        folder: an empty one. base: whose packages this environment sees too, and where its commands work.
    """

    def __init__(self, folder: Path, base: Place | None = None) -> None:
        venv.create(folder / "env", with_pip=True)
        self.bin = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
        self.work = base.work if base is not None else folder / "work"
        self.work.mkdir(exist_ok=True)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EVALKIT"))
        }
        self.variables = {**kept, "EVALKIT_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hub")}
        self.variables["PATH"] = f"{self.bin}{os.pathsep}{kept.get('PATH', '')}"
        if base is not None:
            see_too = f"import site; site.addsitedir({str(base.packages)!r})\n"
            (self.packages / "of_the_base.pth").write_text(see_too, encoding="utf-8")

    @property
    def packages(self) -> Path:
        """Where pip puts packages."""
        program = "import sysconfig; print(sysconfig.get_path('purelib'))"
        python = self.bin / ("python.exe" if os.name == "nt" else "python")
        return Path(subprocess.check_output([str(python), "-c", program], text=True).strip())

    def run(self, *command: str, expected: tuple[int, ...] = (0,)) -> str:
        """Output of a command; of its errors, where it is to fail.

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

    def install(self, *wanted: str) -> None:
        """What pip is told to install, in the tested versions."""
        self.run("python", "-m", "pip", "install", "-c", str(REPOSITORY / "constraints.txt"), *wanted)

    def evalkit(self, *arguments: str, expected: tuple[int, ...] = (0,)) -> str:
        """Output of the command, whichever environment it was installed in."""
        return self.run("python", "-m", "evalkit", *arguments, expected=expected)


# ------------------------------------------------------------------------------------------------- the extras


def use_api(place: Place) -> None:
    """A served model: the server that is not there is what is missing, not a package."""
    asked = (
        "-m",
        "openai:m",
        "--base-url",
        "http://127.0.0.1:9/v1",
        "-t",
        "chartqa@miniature",
        "--limit",
        "1",
    )
    said = place.evalkit("run", *asked, expected=(3,))
    assert "http://127.0.0.1:9" in said and "pip install" not in said, said


def use_leaderboard(place: Place) -> None:
    """The board as static files."""
    place.evalkit("leaderboard", "--runs", "runs", "--export", "site")
    assert "drivelm" in (place.work / "site" / "index.html").read_text(encoding="utf-8")


def use_ray(place: Place) -> None:
    """A run on a cluster of this machine."""
    place.evalkit("run", *MAIN_JOB, "--limit", "4", "--engine", "ray", "--no-resume")


def use_train(place: Place) -> None:
    """Two steps, and the checkpoint evaluated."""
    lines = [
        {
            "id": number,
            "conversations": [{"from": "human", "value": "Say a colour."}, {"from": "gpt", "value": "red"}],
        }
        for number in range(8)
    ]
    (place.work / "colours.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    meta = {"colours": {"root": ".", "annotation": "colours.jsonl"}}
    (place.work / "colours.json").write_text(json.dumps(meta), encoding="utf-8")
    settings = {
        "name": "smoke",
        "model": "mini-internvl-tiny",
        "output": "checkpoints",
        "data": {"meta": "colours.json"},
        "optimizer": {"lr": 1e-4},
        "packing": {"max_tiles": 4, "max_tokens": 400},
        "steps": {"packs_per_step": 1, "max_steps": 2},
        "checkpoints": {"every": 2, "keep": 1},
        "precision": "float32",
    }
    (place.work / "recipe.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    place.evalkit("train", "recipe.yaml")
    place.evalkit("run", *MAIN_JOB, "--limit", "1", "--checkpoint", "checkpoints/final")


def use_video(place: Place) -> None:
    """A frame of a film that is made here."""
    place.run("python", "-c", _FILM)


_FILM = """
import av, numpy
from evalkit.data.images import VideoFrame
with av.open("film.mp4", "w") as film:
    stream = film.add_stream("mpeg4", rate=5)
    stream.width = stream.height = 64
    for number in range(5):
        grey = numpy.full((64, 64, 3), 50 * number, dtype=numpy.uint8)
        film.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
    film.mux(stream.encode())
assert abs(VideoFrame("film.mp4", 2, 5).open().getpixel((9, 9))[0] - 100) < 9
"""

MAIN_JOB = ("-m", "mini-internvl-tiny", "-t", "drivelm", "--split", "miniature")
#: What is done with each extra.
USES: dict[str, Callable[[Place], None]] = {
    "api": use_api,
    "leaderboard": use_leaderboard,
    "ray": use_ray,
    "train": use_train,
    "video": use_video,
}

# -------------------------------------------------------------------------------------------- what all have


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


def score_the_readmes_predictions(place: Place, folder: Path) -> None:
    """The README's two commands on real frames; the stored answers have the values that it prints."""
    given = ("-t", "drivelm", "--split", "sample", "--data-root", str(folder))
    stored = f"predictions:{folder / 'output.json'}"
    (run,) = json.loads(place.run("evalkit", "run", "-m", stored, *given, "--json"))["runs"]
    values = {name: metric["value"] for name, metric in run["metrics"].items()}
    readme = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    for metric, printed in (
        ("accuracy", "accuracy 0.0"),
        ("bleu_1", "BLEU-1..4 0.1988"),
        ("bleu_2", "0.0802"),
        ("bleu_3", "0.0305"),
        ("bleu_4", "2.24e-06"),
        ("rouge_l", "ROUGE-L 0.1842"),
        ("cider", "CIDEr 0.0017"),
    ):
        number = printed.split()[-1]
        digits = f"{values[metric]:.2e}" if "e" in number else f"{values[metric]:.{len(number) - 2}f}"
        assert printed in readme and digits == number, (metric, values[metric])
    (own,) = json.loads(place.run("evalkit", "run", "-m", "mini-internvl-tiny", *given, "--json"))["runs"]
    place.run("evalkit", "compare", run["run"], own["run"], "--allow", "dtype", expected=(0, 1, 5))


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
    parser.add_argument("--extras", default="", help=f"comma list of {', '.join(USES)}")
    parser.add_argument("--without-torch", action="store_true")
    parser.add_argument("--drivelm", type=Path, help="the challenge's sample, as the README wants it")
    given = parser.parse_args()
    wheel = given.wheel.resolve()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Place(Path(folder))
        if given.without_torch:
            for arguments in commands_without_torch(wheel):
                place.run("python", "-m", "pip", *arguments)
            place.run("python", "-c", "import torch", expected=(1,))
        else:
            place.install(str(wheel))
        check_the_command(place)
        for task in ("chartqa", "drivelm"):
            score_stored_answers(place, task)
        if not given.without_torch:
            place.run("evalkit", "doctor")
            place.run("evalkit", "run", *MAIN_JOB, "--limit", "4")
            if given.drivelm is not None:
                score_the_readmes_predictions(place, given.drivelm.resolve())
        for extra in filter(None, given.extras.split(",")):
            print(f"== {extra}")
            alone = Place(Path(folder) / extra, place)
            alone.install(f"{wheel}[{extra}]")
            USES[extra](alone)
    print("all of it works")


if __name__ == "__main__":
    sys.exit(main())
