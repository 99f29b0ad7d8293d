"""What a GPU makes of evalkit: each part in order of worth, within the minutes given.

    python benchmarks/gpu.py --minutes 8 --out gpu.json
    python benchmarks/gpu.py --dry-run    # every line, on the CPU with tiny widths; its figures say nothing

Each part runs in a process of its own (benchmarks/gpu_parts.py). Its rows are in the file before the next
part starts, so a kill loses one part at most. The same command goes on with the parts that are missing. A
part that fails, or takes more than half of the time left, is recorded with its cause and does not stop the
others. A table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_parts import PARTS

HERE = Path(__file__).resolve().parent


def hardware(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    import torch
    import transformers

    import mini_internvl  # noqa: F401  (it must import before minutes are spent)

    found = {
        "device": device,
        "name": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
    return found


def run_part(name: str, arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """One part's rows, or why it has none."""
    command = [sys.executable, str(HERE / "gpu_parts.py"), name, "--device", arguments.device]
    command += ["--tiny"] if arguments.dry_run else []
    started = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as stopped:
        text = stopped.stdout.decode() if isinstance(stopped.stdout, bytes) else stopped.stdout or ""
        return {"rows": _rows(text), "failed": f"stopped after {seconds:.0f} s"}
    found: dict[str, Any] = {"rows": _rows(done.stdout), "seconds": round(time.monotonic() - started, 1)}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        found["failed"] = f"exit status {done.returncode}: {lines[-1][:300]}"
    return found


def _rows(text: str) -> list[dict[str, Any]]:
    """A row a line, as JSON; a line that was cut is left out."""
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def write(path: Path, content: dict[str, Any]) -> None:
    """Replaces the file at once."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def start(path: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """What an earlier call measured on the same machine, else nothing."""
    if not path.exists():
        return {"machine": machine, "parts": {}}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content["machine"] != machine:
        sys.exit(f"{path}: was measured on another machine or with other versions; give another --out")
    return content


def table(content: dict[str, Any]) -> str:
    """All rows as Markdown."""
    machine = content["machine"]
    lines = [", ".join(f"{key} {value}" for key, value in machine.items()), ""]
    lines += ["| part | work | measured | against | ratio or share |", "|---|---|---|---|---|"]
    for name, part in content["parts"].items():
        for row in part["rows"]:
            value = f"{row['value']:.4g} {row['unit']}" if row["value"] is not None else row["unit"]
            ratio = "" if row.get("ratio") is None else f"{row['ratio']:.3g}"
            lines.append(f"| {name} | {row['work']} | {value} | {row.get('against', '')} | {ratio} |")
        if "failed" in part:
            lines.append(f"| {name} | not finished: {part['failed']} | | | |")
    return "\n".join(lines)


def main() -> int:
    """Measures what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, help="gpu.json; gpu-dry-run.json with --dry-run")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--part", choices=PARTS, action="append", help="these alone")
    arguments = parser.parse_args()
    import torch

    arguments.device = "cpu" if arguments.dry_run else "cuda"
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu.py: torch sees no CUDA GPU here; --dry-run runs every part on the CPU with tiny widths")
    end = time.monotonic() + 60 * arguments.minutes
    path = arguments.out or Path("gpu-dry-run.json" if arguments.dry_run else "gpu.json")
    content = start(path, hardware(arguments.device))
    for name in arguments.part or PARTS:
        part = content["parts"].get(name)
        left = end - time.monotonic()
        if (part is not None and "failed" not in part) or left < 1:
            continue
        print(f"{name}: {left:.0f} s left", file=sys.stderr, flush=True)
        content["parts"][name] = run_part(name, arguments, left / 2)
        write(path, content)
    print(table(content))
    missing = [name for name in arguments.part or PARTS if name not in content["parts"]]
    failed = [name for name, part in content["parts"].items() if "failed" in part]
    if missing:
        print(
            f"no time was left for: {', '.join(missing)}; the same command goes on with them", file=sys.stderr
        )
    return 1 if missing or failed else 0


if __name__ == "__main__":
    sys.exit(main())
