"""Run folders whose every text tries to be something else."""

from __future__ import annotations

import json
from pathlib import Path

from evalkit.contracts import Record, Response
from evalkit.store import Scored, write_records

#: Each would set `window.hacked`, load something, or change the page, were it ever rendered.
TEXTS = (
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    '"><svg/onload=window.hacked=1>',
    "<a href='javascript:window.hacked=1'>click</a><iframe src='http://hostile.test/'></iframe>",
    "[click](javascript:window.hacked=1) ![x](http://hostile.test/x.png) # **big**",
    "$\\href{javascript:window.hacked=1}{x}$ :red[red] :material/home: <style>*{display:none}</style>",
    "\x1b[31mred\x1b[0m\x07 \u202edesrever\u202c \ud800 \x00",
    "../../../../etc/passwd",
    "{{constructor.constructor('window.hacked=1')()}} ${window.hacked=1} %s %(x)s {0}",
    "=cmd|' /C calc'!A0",
    "long " * 40_000,
    "</title></textarea></code></pre></div><script>window.hacked=1</script>",
)
PICTURES = (
    "/etc/passwd",
    "../../secret.png",
    "javascript:window.hacked=1",
    "http://hostile.test/x.png",
    "/dev/zero",
)


def make_hostile_tree(root: Path, task: str = "rsvqa-lr") -> None:
    """Two runs for every hostile text: on a real task with hostile contents, and with a hostile task name."""
    for place, text in enumerate(TEXTS):
        for number, name in enumerate((task, text)):
            for checkpoint in (100, 200):
                folder = root / f"model-{place}" / f"task-{number}" / f"2026010{number}-{checkpoint}"
                folder.mkdir(parents=True)
                _write(folder, text, name, f"{text[:200]}@step-{checkpoint}", place)
    log = root / "training" / "log.jsonl"
    log.parent.mkdir()
    log.write_text("".join(json.dumps({"step": s, TEXTS[0]: s / 2, TEXTS[4]: 1.0}) + "\n" for s in range(9)))


def _write(folder: Path, text: str, task: str, model: str, place: int) -> None:
    """A run named by `text`, whose samples hold this hostile text and the three after it."""
    question, answer, target, tag = (TEXTS[(place + step) % len(TEXTS)] for step in range(4))
    score = text[:100].replace("\ud800", "")
    records = [
        Record(
            f"{text[:300]}{number}",
            text[:300],
            answer,
            {"answer": answer[:2000]},
            target,
            {"accuracy": float((number + place) % 2), score: 0.5},
            {"type": tag[:500], tag[:60]: "tag"},
            data={text[:60]: [tag[:200]]},
        )
        for number in range(3)
    ]
    write_records(
        folder,
        [
            Scored(r, Response(r.text, "stop", 1, 1, 1, 0.1), f"k{r.id[-1]}", question, PICTURES)
            for r in records
        ],
    )
    figure = {"value": 50.0 + place, "unit": text[:50], "n": 3, "ci95": [40.0, 90.0]}
    manifest = {
        "created": f"2026-01-01T00:00:{place:02}",
        "model": {"name": model, "fingerprint": model[:50], "device": text[:90], "parameters": 10**6 + place},
        "task": {"name": task, "split": "miniature", "protocol": "paper"},
        "selection": {"expected": 3},
    }
    summary = {
        "status": "complete",
        "model": model,
        "task": task,
        "title": text,
        "split": "miniature",
        "protocol": "paper",
        "counts": {"expected": 3, "answered": 3, "errors": 0, text[:30]: 4},
        "metrics": {"average": figure, text[:80]: figure},
        "groups": {text[:80]: {text[:80]: {text[:80]: {"value": 1.0, "n": 3, "reason": text[:50]}}}},
        "reference": [],
        "signature": f"{task}|v1|miniature|n:3|prompt:{text[:100]}|scorer:paper.1|data:abc",
        "notes": [text],
        "nonstandard": {text[:40]: text[:40]} if place % 2 else {},
    }
    for name, content in (("manifest", manifest), ("summary", summary)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    line = json.dumps({"id": records[0].id, "request_key": "k0", "text": text})
    (folder / "responses-0.jsonl").write_text(f"{line}\n")
