"""Whether a server gives the answers of the same checkpoint in this process, question by question.

    python benchmarks/served_answers.py make FOLDER                 a small random InternVL to serve
    (start a server that serves FOLDER, in whatever environment it needs)
    python benchmarks/served_answers.py compare FOLDER --base-url URL --name NAME

`compare` asks the same miniatures of both, greedily, and prints how many answers are equal, and what the
server counted; status 1 where some differ by more than a torn last character.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from evalkit.contracts import ModelOptions, Request, Response
from evalkit.pipeline.job import make_job
from evalkit.pipeline.options import RunOptions
from evalkit.registry import model as load_model


def make(folder: Path) -> None:
    """Write the checkpoint; its heads are 64 wide, as vLLM's CPU kernels want them."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from small_vlms import make_vlm

    folder.mkdir(parents=True, exist_ok=True)
    make_vlm(
        "internvl", folder, spread=0.08,
        hidden_size=256, num_attention_heads=4, num_key_value_heads=2, intermediate_size=384,
    )  # fmt: skip
    print(f"{folder}: a random InternVL; serve it in float32")


def requests(task: str, limit: int, new_tokens: int) -> list[Request]:
    """Questions of a miniature."""
    options = RunOptions(
        model="", split="miniature", limit=limit, gen=(f"max_new_tokens={new_tokens}",), output=Path("unused")
    )
    job = make_job(task, options)
    return [job.request(place) for place in range(len(job.samples))]


def answers(spec: str, options: ModelOptions, asked: list[Request]) -> tuple[dict[str, Response], float]:
    """Answers by id, and seconds."""
    model = load_model(spec, options)
    try:
        started = time.perf_counter()
        return dict(model.generate(asked)), time.perf_counter() - started
    finally:
        model.close()


def compare(folder: Path, url: str, name: str, tasks: str, limit: int, new_tokens: int) -> int:
    """Ask both and print a line for each task; returns 1 where an answer differs."""
    here = ModelOptions(dtype="float32")
    there = ModelOptions(base_url=url)
    differing = 0
    print("task, questions, equal, equal but for a torn last character, prompt tokens and seconds here/there")
    for task in tasks.split(","):
        asked = requests(task, limit, new_tokens)
        ours, ours_seconds = answers(f"hf:{folder}", here, asked)
        theirs, theirs_seconds = answers(f"openai:{name}", there, asked)
        failed = [response.error for response in (*ours.values(), *theirs.values()) if response.error]
        if failed:
            print(f"{task}: {len(failed)} errors, first: {failed[0].kind}: {failed[0].message}")
        equal = sum(ours[key].text == theirs[key].text for key in ours)
        nearly = sum(_whole(ours[key].text) == _whole(theirs[key].text) for key in ours)
        tokens = [sum(r.prompt_tokens + r.visual_tokens for r in side.values()) for side in (ours, theirs)]
        print(
            f"{task}, {len(asked)}, {equal}, {nearly}, {tokens[0]}/{tokens[1]}, "
            f"{ours_seconds:.1f}/{theirs_seconds:.1f}",
            flush=True,
        )
        differing += len(asked) - nearly
    return 1 if differing else 0


def _whole(text: str) -> str:
    """Without a broken character at the end. An answer cut by its length may end within one: transformers
    shows a replacement mark there, vLLM nothing."""
    return text.rstrip("\ufffd")


def main() -> int:
    """Parse and carry out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make")
    maker.add_argument("folder", type=Path)
    comparer = commands.add_parser("compare")
    comparer.add_argument("folder", type=Path)
    comparer.add_argument("--base-url", required=True)
    comparer.add_argument("--name", required=True, help="of the model at the server")
    comparer.add_argument("--tasks", default="rsvqa-lr,chartqa,drivelm")
    comparer.add_argument("--limit", type=int, default=24)
    comparer.add_argument("--new-tokens", type=int, default=16)
    given = parser.parse_args()
    if given.command == "make":
        make(given.folder)
        return 0
    return compare(given.folder, given.base_url, given.name, given.tasks, given.limit, given.new_tokens)


if __name__ == "__main__":
    sys.exit(main())
