"""Runs that do not measure the same thing, or cannot be read: one clear line and exit status 2."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from stored_runs import Answers, Toy, outcomes, write_run

import evalkit
from evalkit.cli.main import invoke
from evalkit.comparison.runs import load_for_comparison, pair
from evalkit.errors import NotComparableError
from evalkit.store import lock

GOOD = outcomes(0.9, 100)


def refused(capsys: pytest.CaptureFixture[str], base: Path, new: Path, *flags: str) -> str:
    """The reason, which stderr and the JSON document both give."""
    assert invoke(["compare", str(base), str(new), "--json", *flags]) == 2
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert content["verdict"] == "not_comparable" and content["metrics"] == [] and content["flips"] == {}
    (reason,) = content["reasons"]
    assert captured.err.count("\n") == 1 and captured.err.startswith("evalkit: error: ")
    assert " ".join(reason.split()) in captured.err
    for style, mark in (("markdown", "not comparable"), ("junit", "<error")):
        assert invoke(["compare", str(base), str(new), "--format", style, *flags]) == 2
        assert mark in capsys.readouterr().out
    return str(reason)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A sound run."""
    return write_run(tmp_path, "base", Answers(GOOD))


@pytest.mark.parametrize(
    ("field", "value"),
    [("tiles", "6"), ("prompt", "000000"), ("gen", "beams5,50"), ("dtype", "fp32"), ("evalkit", "0.2.0"),
     ("data", "ffffff"), ("nonstandard", "max_tiles=6"), ("judge", "gpt")],
)  # fmt: skip
def test_a_field_of_the_signature_differs(
    field: str, value: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD), fields={field: value})
    reason = refused(capsys, base, new)
    assert f"{field} (" in reason and f"| {value})" in reason and f"--allow {field}" in reason
    assert invoke(["compare", str(base), str(new), "--allow", field]) == 0


def test_several_fields_are_all_named(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD), fields={"tiles": "6", "dtype": "fp32"})
    assert "tiles (12 | 6), dtype (bf16 | fp32) differ" in refused(capsys, base, new)
    assert "dtype" in refused(capsys, base, new, "--allow", "tiles")
    assert invoke(["compare", str(base), str(new), "--allow", "tiles,dtype"]) == 0


def test_protocols_are_never_mixed(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD), task=Toy("official"))
    reason = refused(capsys, base, new, "--allow", "protocol", "--allow", "scorer")
    assert "protocol (paper | official) differs" in reason


def test_splits_are_never_mixed(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD), split="val")
    assert "no task in common" in refused(capsys, base, new)


def test_different_requests(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD), key="other-")
    assert "100 requests differ (first: s0)" in refused(capsys, base, new)
    assert invoke(["compare", str(base), str(new), "--allow", "request"]) == 0


def test_different_subsets(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = Answers(GOOD).records()[:60]
    new = write_run(tmp_path, "new", Answers(GOOD), records=part, fields={"subset": "abc123"}, limited=True)
    reason = refused(capsys, base, new)
    assert "n (100 | 60)" in reason and "subset (none | abc123)" in reason
    assert invoke(["compare", str(base), str(new), "--json", "--allow", "n", "--allow", "subset"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert "compared on the 60 common samples" in content["reasons"][0]
    assert content["metrics"][0]["n"] == 60


def test_nested_limits_compare_on_what_both_have_with_one_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--limit 50` inside `--limit 100` of the same seed."""
    whole = Answers(GOOD).records()
    more = write_run(tmp_path, "a", Answers(GOOD), fields={"subset": "aa"}, limited=True)
    less = write_run(tmp_path, "b", Answers(GOOD), records=whole[:50], fields={"subset": "bb"}, limited=True)
    reason = refused(capsys, more, less)
    assert reason.endswith("to compare them knowingly: --allow subset")
    for flag in ("subset", "n"):
        assert invoke(["compare", str(more), str(less), "--json", "--allow", flag]) == 0
        content = json.loads(capsys.readouterr().out)
        assert {entry["n"] for entry in content["metrics"]} == {50}


@pytest.mark.parametrize("field", ["tiles", "prompt", "request", "gen"])
def test_no_field_but_images_lets_images_differ(
    tmp_path: Path, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = [load_for_comparison(write_run(tmp_path, name, Answers(GOOD), key=name)) for name in "ab"]
    one, other = (
        dataclasses.replace(side, image_keys={record.id: picture for record in side.records})
        for side, picture in zip(sides, ("cat", "dog"), strict=True)
    )
    with pytest.raises(NotComparableError, match="images of 100 samples differ"):
        pair(one, other, [field])
    assert len(pair(one, other, [field, "images"]).base) == 100
    alike = dataclasses.replace(other, image_keys=one.image_keys)
    assert len(pair(one, alike, [field]).base) == 100


def test_limited_runs_of_the_same_subset_are_comparable(tmp_path: Path) -> None:
    both = [
        write_run(tmp_path, name, Answers(GOOD), fields={"subset": "abc123"}, limited=True) for name in "ab"
    ]
    assert invoke(["compare", *map(str, both)]) == 0


def test_unpaired_ids(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = Answers(GOOD).records()
    renamed = [evalkit.Record("x", "c", "", None, "", {}), *records[1:]]
    new = write_run(tmp_path, "new", Answers(GOOD), records=renamed)
    assert "1 samples only in BASE, 1 only in NEW (first: s0)" in refused(capsys, base, new)
    strangers = [evalkit.Record(f"x{r.id}", r.cluster, "", None, "", dict(r.scores)) for r in records]
    new = write_run(tmp_path, "stranger", Answers(GOOD), records=strangers)
    assert "no sample in common" in refused(capsys, base, new, "--allow", "subset")


def test_duplicated_ids(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = Answers(GOOD).records()
    new = write_run(tmp_path, "new", Answers(GOOD), records=[*records[:-1], records[0]])
    assert "sample id 's0' occurs twice" in refused(capsys, base, new)


def test_empty_runs(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD), records=[])
    assert "the run is empty" in refused(capsys, base, new)
    gone = frozenset(f"s{place}" for place in range(100))
    new = write_run(tmp_path, "failed", Answers(GOOD, failed=gone))
    assert "no sample was answered" in refused(capsys, base, new)


def test_nothing_answered_by_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    halves = [frozenset(f"s{place}" for place in range(start, start + 50)) for start in (0, 50)]
    one, other = (write_run(tmp_path, n, Answers(GOOD, failed=h)) for n, h in zip("ab", halves, strict=True))
    assert "no sample was answered by both" in refused(capsys, one, other)


def test_a_run_in_progress_or_broken_off(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD), summary=False)
    assert "was broken off before its end (no summary.json)" in refused(capsys, base, new)
    held = lock.acquire(new)
    try:
        assert "is still running" in refused(capsys, base, new)
    finally:
        held.release()


@pytest.mark.parametrize("name", ["records.parquet", "summary.json", "manifest.json", "responses-0.jsonl"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_cut_file(
    name: str, share: float, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD))
    whole = (new / name).read_bytes()
    (new / name).write_bytes(whole[: int(len(whole) * share)])
    reason = refused(capsys, base, new)
    assert str(new) in reason


def test_records_that_do_not_fit_their_summary(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD))
    summary = json.loads((new / "summary.json").read_text())
    summary["counts"]["answered"] = 250
    (new / "summary.json").write_text(json.dumps(summary))
    assert "100 records but the summary counts 250: a file was cut" in refused(capsys, base, new)


def test_a_vanished_records_file(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD))
    (new / "records.parquet").unlink()
    assert "records.parquet: missing" in refused(capsys, base, new)


def test_a_run_may_be_kept_without_its_responses(base: Path, tmp_path: Path) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD))
    (new / "responses-0.jsonl").unlink()
    assert invoke(["compare", str(base), str(new)]) == 0


def test_unknown_names(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["compare", "bases", str(base), "-o", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "bases: no run folder, and no model or baseline of that name" in err and "(nearest: base)" in err


def test_a_model_without_a_complete_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_run(tmp_path, "base", Answers(GOOD))
    new = write_run(tmp_path, "new", Answers(GOOD), limited=True)
    assert "no complete run below it" in refused(capsys, base, new.parent)


def test_an_unknown_task(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Stranger(Toy):
        name = "stranger"

    both = [write_run(tmp_path, name, Answers(GOOD), task=Stranger()) for name in "ab"]
    assert "unknown task 'stranger'" in refused(capsys, both[0], both[1])


def test_python_raises(base: Path, tmp_path: Path) -> None:
    new = write_run(tmp_path, "new", Answers(GOOD), fields={"tiles": "6"})
    with pytest.raises(NotComparableError, match="tiles"):
        evalkit.compare(base, new)


def test_the_latest_complete_run_of_a_model_counts(tmp_path: Path) -> None:
    write_run(tmp_path, "base", Answers(outcomes(0.5)))
    old = next(tmp_path.glob("base/toy@test/2*"))
    old.rename(old.with_name("20200101-000000-aaaaaa"))
    write_run(tmp_path, "base", Answers(outcomes(0.9)))
    write_run(tmp_path, "base", Answers(outcomes(0.1)), limited=True)
    write_run(tmp_path, "new", Answers(outcomes(0.9)))
    found = evalkit.compare("base", "new", output=tmp_path, resamples=500)
    assert found.metrics[0].difference.difference == 0.0
