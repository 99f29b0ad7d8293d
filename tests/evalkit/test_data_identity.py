"""The data hash covers what scoring reads, and a comparison always looks whether the images are the same."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evalkit import registry
from evalkit.data.locate import locate
from evalkit.pipeline.signature import data_hashes


@pytest.mark.parametrize("name", ["ocrbench", "chartqa", "mmbench", "rsvqa-lr", "drivelm", "mathvista"])
def test_tags_and_further_data_count_in_every_task(name: str) -> None:
    task = registry.task(name)
    samples = list(task.samples("miniature", locate(task, "miniature", None, True)))
    before, older = data_hashes(samples)
    assert data_hashes(samples) == (before, older) and before != older
    first = samples[0]
    changes: list[dict[str, Any]] = [{"tags": {**first.tags, "category": "other"}}]
    changes += [{"data": {**first.data, name: "other"}} for name in (*first.data, "options")]
    for change in changes:
        changed = [dataclasses.replace(first, **change), *samples[1:]]
        now, as_earlier = data_hashes(changed)
        assert now != before and as_earlier == older


def _pair(bench: Any) -> tuple[Path, Path]:
    """Two runs, of twelve and of six tiles; the images of the second are others."""
    assert bench.run() == 0
    base = Path(bench.result["run"])
    for path in sorted(bench.folder.glob("*.png")):
        Image.new("RGB", (9, 9), (1, 2, 3)).save(path)
    assert bench.run("--max-tiles", "6") == 0
    return base, Path(bench.result["run"])


@pytest.mark.parametrize("field", ["tiles", "request", "gen"])
def test_no_field_switches_the_check_of_images_off(field: str, bench: Any) -> None:
    base, new = _pair(bench)
    allowed = ["--allow", "tiles", "--allow", "nonstandard", "--allow", field]
    assert bench.cli("compare", base, new, "--include", bench.task, *allowed) == 2
    assert "the images of 20 samples differ" in bench.err
    assert bench.cli("compare", base, new, "--include", bench.task, *allowed, "--allow", "images") in (0, 1)


def test_other_tiles_of_the_same_images(bench: Any) -> None:
    assert bench.run() == 0
    base = bench.result["run"]
    assert bench.run("--max-tiles", "6") == 0
    allowed = ["--allow", "tiles", "--allow", "nonstandard"]
    assert bench.cli("compare", base, bench.result["run"], "--include", bench.task, *allowed) == 0


def test_a_data_hash_of_an_older_form_is_said(bench: Any) -> None:
    assert bench.run() == 0
    base = Path(bench.result["run"])
    assert bench.run("--no-resume") == 0
    new = Path(bench.result["run"])
    manifest = json.loads((base / "manifest.json").read_text())
    older = manifest["data"].pop("older_hash")
    current = manifest["data"]["hash"]
    manifest["data"]["hash"] = manifest["scored"]["data"] = older
    del manifest["scored"]["older_data"]
    (base / "manifest.json").write_text(json.dumps(manifest))
    summary = (base / "summary.json").read_text()
    (base / "summary.json").write_text(summary.replace(f"data:{current[:6]}", f"data:{older[:6]}"))
    assert bench.cli("compare", base, new, "--include", bench.task, "--json") == 0
    assert any("data hash is of an older form" in reason for reason in bench.document["reasons"])
    assert bench.cli("score", base) == 0
    assert "the data is not what" not in bench.err
    assert bench.cli("compare", base, new, "--include", bench.task, "--json") == 0
    assert not any("older form" in reason for reason in bench.document["reasons"])
