"""The machine and the software that produced a value, for the manifest and `evalkit doctor`."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

from evalkit.contracts import Json
from evalkit.installation import VERSION

#: Packages whose version can change an answer or a score.
PACKAGES = (
    "torch", "transformers", "tokenizers", "sentencepiece", "safetensors", "pillow", "numpy",
    "pycocoevalcap", "rapidfuzz", "pyarrow",
)  # fmt: skip


@lru_cache
def package_version(name: str) -> str | None:
    """Version of an installed distribution, or None; imports nothing."""
    try:
        return installed(name)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Python, evalkit and the installed packages of `PACKAGES`."""
    found = {name: package_version(name) for name in PACKAGES}
    known = {name: text for name, text in found.items() if text}
    return {"python": platform.python_version(), "evalkit": VERSION, **known}


@lru_cache(maxsize=1)
def git_revision() -> dict[str, Json] | None:
    """Commit of the checkout that evalkit runs from and whether it was changed, or None outside of one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changed)}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


def hardware() -> dict[str, Json]:
    """Machine, processor, cores, memory; accelerators where torch is loaded already."""
    found: dict[str, Json] = {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


@contextmanager
def many_objects() -> Iterator[None]:
    """Pauses the search for reference cycles while very many objects are made, none of them in a cycle.

    It would look at all of them again and again, for a third of the time of reading a large run.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def is_windows() -> bool:
    """Whether this is Windows, where ranks, Ray and FSDP are not supported (docs/install.md)."""
    return os.name == "nt"


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Physical memory, or None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def peak_memory() -> dict[str, int]:
    """Peak bytes of this process, and of the accelerator where torch is loaded already."""
    peak: dict[str, int] = {}
    try:
        import resource
    except ImportError:  # not on Windows
        pass
    else:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak["host_bytes"] = used if sys.platform == "darwin" else used * 1024
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["device_bytes"] = torch.cuda.max_memory_allocated()
    return peak
