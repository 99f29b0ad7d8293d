"""DIOR-RSVG: object numbers, partial copies, box spellings, broken and hostile XML."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from general_tables import plain_values, records_of
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import Record, Response, Sample
from evalkit.errors import DataError
from evalkit_tasks.remote_sensing.dior_rsvg import DiorRsvg

Objects = Sequence[tuple[Sequence[Any], str]]


def xml(name: str, objects: Objects, size: tuple[int, int] = (800, 800)) -> str:
    parts = [
        f"<object><name>x</name><pose>Unspecified</pose><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox><description>{text}</description></object>"
        for b, text in objects
    ]
    head = f"<filename>{name}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{head}{''.join(parts)}</annotation>"


def official(root: Path, files: dict[str, Objects], indexes: dict[str, list[int]]) -> Path:
    (root / "Annotations").mkdir()
    for stem, objects in files.items():
        text = xml(f"{stem}.jpg", objects)
        (root / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")
    for split, ids in indexes.items():
        (root / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids), encoding="utf-8")
    return root


THREE = {
    "00002": [((1, 2, 3, 4), "A Ship"), ((5, 6, 7, 8), "Two Ships")],
    "00001": [((10, 20, 30, 40), "A Plane")],
}


def test_numbers_do_not_follow_the_folders_own_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system lists files in any order; the published numbers follow the names."""
    official(tmp_path, THREE, {"train": [1], "val": [0], "test": [2]})
    listed = sorted((tmp_path / "Annotations").glob("*.xml"), reverse=True)
    for name in ("glob", "rglob", "iterdir"):
        monkeypatch.setattr(Path, name, lambda *_: iter(listed))
    (sample,) = DiorRsvg().samples("val", tmp_path)
    assert (sample.cluster, sample.target) == ("00001.jpg", [10, 20, 30, 40])


def test_attributes_of_macos_archives_are_passed_over(tmp_path: Path) -> None:
    official(tmp_path, THREE, {"train": [1], "val": [0], "test": [2]})
    for name in ("._00001.xml", "._00003.xml"):
        (tmp_path / "Annotations" / name).write_bytes(b"\0\x05\x16\x07 no XML")
    (sample,) = DiorRsvg().samples("val", tmp_path)
    assert (sample.cluster, sample.target) == ("00001.jpg", [10, 20, 30, 40])


def test_numbers_run_over_all_objects_in_sorted_order(tmp_path: Path) -> None:
    official(tmp_path, THREE, {"train": [1], "val": [0], "test": [2]})
    (sample,) = DiorRsvg().samples("test", tmp_path)
    assert (sample.id, sample.cluster, sample.target) == ("2", "00002.jpg", [5, 6, 7, 8])
    assert sample.images[0].paths() == (str(tmp_path / "JPEGImages" / "00002.jpg"),)
    request = DiorRsvg().request(sample)
    assert request.messages[-1].text == "Detect <ref>two ships</ref>"
    assert (request.generation.max_new_tokens, request.image_policy.max_tiles) == (200, 12)
    (sample,) = DiorRsvg().samples("val", tmp_path)
    assert (sample.id, sample.target) == ("0", [10, 20, 30, 40])


def test_refcoco_settings(tmp_path: Path) -> None:
    official(tmp_path, THREE, {"test": [0, 1, 2]})
    request = DiorRsvg("refcoco").request(next(iter(DiorRsvg().samples("test", tmp_path))))
    assert request.messages[-1].text == (
        "Please provide the bounding box coordinate of the region this sentence describes: <ref>a plane</ref>"
    )
    assert (request.generation.max_new_tokens, request.image_policy.max_tiles) == (100, 6)


@pytest.mark.parametrize(
    ("indexes", "message"),
    [
        ({"test": [0, 1]}, "put train.txt, val.txt there too"),
        ({"train": [3], "val": [1], "test": [0, 2]}, "wrong objects"),
        ({"train": [1, 2], "val": [3, 4], "test": [0]}, "holds 3 objects"),
        ({"test": [0, 0, 1, 2]}, "listed twice"),
        ({"test": []}, "wrong objects"),
    ],
)
def test_a_partial_copy_is_refused(tmp_path: Path, indexes: dict[str, list[int]], message: str) -> None:
    official(tmp_path, THREE, indexes)
    with pytest.raises(DataError, match=message):
        list(DiorRsvg().samples("test", tmp_path))


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        list(DiorRsvg().samples("test", tmp_path))
    official(tmp_path, THREE, {"test": [0, 1, 2]})
    index = tmp_path / "test.txt"
    index.write_text("0\nseven\n", encoding="utf-8")
    with pytest.raises(DataError, match="not a number"):
        list(DiorRsvg().samples("test", tmp_path))
    index.write_text("0\r\n1\r\n2\r\n", encoding="utf-8")
    assert len(list(DiorRsvg().samples("test", tmp_path))) == 3
    shutil.rmtree(tmp_path / "Annotations")
    with pytest.raises(DataError, match="Annotations"):
        list(DiorRsvg().samples("test", tmp_path))


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "xxxxxxxx"><!ENTITY y "&x;&x;&x;&x;">]>'
    "<annotation><filename>&y;</filename></annotation>"
)
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "refused"),
        (EXTERNAL, "refused"),
        ("<annotation><object>", "broken XML"),
        ("", "broken XML"),
        ('<?xml version="1.0" encoding="UT8"?><annotation/>', "broken XML .*unknown encoding"),
        (xml("a.jpg", [((1, 2, 3, "x"), "t")]), "4 numbers expected"),
        (xml("a.jpg", [((1, 2, 3, "nan"), "t")]), "4 numbers expected"),
        (xml("a.jpg", [((1, 2, 3, 4), "t")]).replace("description", "text"), "<description> missing"),
        (xml("a.jpg", [((1, 2, 3, 4), "t")]).replace("filename", "file"), "<filename> missing"),
    ],
)
def test_broken_and_hostile_xml(tmp_path: Path, text: str, message: str) -> None:
    official(tmp_path, THREE, {"test": [0, 1, 2]})
    (tmp_path / "Annotations" / "00003.xml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        list(DiorRsvg().samples("test", tmp_path))
    assert "00003.xml" in str(caught.value)


def test_internvl_list(tmp_path: Path) -> None:
    item = {"image": "d/1.jpg", "prompt": "<ref>A Ship</ref>", "bbox": [1, 2, 3, 4], "size": [800, 600]}
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "dior_rsvg_test.json").write_text(json.dumps([item, item]), encoding="utf-8")
    (tmp_path / "images" / "d").mkdir(parents=True)
    (tmp_path / "images" / "d" / "1.jpg").write_bytes(b"x")
    samples = list(DiorRsvg().samples("test", tmp_path))
    assert [s.id for s in samples] == ["0", "1"]
    assert DiorRsvg().request(samples[0]).messages[-1].text == "Detect <ref>A Ship</ref>"
    assert samples[0].images[0].paths() == (str(tmp_path / "images" / "d" / "1.jpg"),)
    assert samples[0].data["size"] == [800.0, 600.0]
    assert all(file.find(tmp_path) for file in DiorRsvg().data_source.files_of("test"))


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, float("nan")], "1234", None])
def test_a_list_with_a_bad_box_is_refused(tmp_path: Path, box: Any) -> None:
    item = {"image": "1.jpg", "prompt": "x", "bbox": box, "size": [800, 600]}
    (tmp_path / "dior_rsvg_test.json").write_text(json.dumps([item]), encoding="utf-8")
    with pytest.raises(DataError, match=r"item 0|NaN is not a number"):
        list(DiorRsvg().samples("test", tmp_path))


# Scores -------------------------------------------------------------------------------------------------


def scored(
    text: str, target: list[float], size: tuple[int, int] = (800, 800), protocol: str = "paper"
) -> Record:
    sample = Sample("0", ("q",), (), target, "1.jpg", data={"size": list(size)})
    return DiorRsvg(protocol).score(sample, Response(text=text))


@pytest.mark.parametrize(
    ("text", "target", "size", "paper", "refcoco"),
    [
        ("[125,125,375,375]", [100, 100, 300, 300], (800, 800), 0, 1),
        ("[[125,125,375,375],[1,2,3,4]]", [100, 100, 300, 300], (800, 800), 0, 1),
        ("[[0.125,0.125,0.375,0.375]]", [100, 100, 300, 300], (800, 800), 0, 1),
        ("[[125,125,250,375]]", [100, 100, 300, 300], (800, 800), 1, 1),
        ("[[100,100,140,119]]", [10, 10, 14, 14], (100, 100), 1, 0),
        ("[[125,125,375,375]]", [100, 100, 300, 300], (800, 800), 1, 1),
        ("<box>[[125, 125, 375, 375]]</box>[[0,0,1,1]]", [100, 100, 300, 300], (800, 800), 1, 1),
        ("[[125,125,375,375,1]]", [100, 100, 300, 300], (800, 800), 0, 0),
        ("[[NaN,NaN,NaN,NaN]]", [100, 100, 300, 300], (800, 800), 0, 0),
        ("", [100, 100, 300, 300], (800, 800), 0, 0),
    ],
)
def test_the_scorers_differ(
    text: str, target: list[float], size: tuple[int, int], paper: int, refcoco: int
) -> None:
    assert scored(text, target, size).scores["acc_0.5"] == paper
    assert scored(text, target, size, "refcoco").scores["acc_0.5"] == refcoco


def test_exactly_half_is_wrong_under_paper_and_right_under_refcoco() -> None:
    # Inclusive pixels: 5 x 10 of 10 x 10. Edges: 5 x 10 of 10 x 10.
    assert scored("[[0,0,4,9]]", [0, 0, 9, 9], (1000, 1000)).scores == {
        "iou": 0.5,
        "intersection": 50.0,
        "union": 100.0,
        "acc_0.5": 0.0,
        "acc_0.25": 1.0,
        "acc_0.75": 0.0,
    }
    assert scored("[[0,0,5,10]]", [0, 0, 10, 10], (1000, 1000), "refcoco").scores["acc_0.5"] == 1.0


def test_a_missing_box_scores_nothing_and_its_target_counts_in_the_union() -> None:
    found = scored("no idea", [0, 0, 9, 9])
    assert found.flags == ("unparsed",)
    assert found.prediction is None
    assert (found.scores["iou"], found.scores["union"], found.scores["intersection"]) == (0.0, 100.0, 0.0)


BOX = st.tuples(*[st.integers(0, 1000)] * 4)


@given(st.lists(st.tuples(BOX, BOX, st.booleans()), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_values_are_the_plain_formulas(cases: list[tuple[Any, Any, bool]]) -> None:
    records, ious, inner, outer = [], [], 0.0, 0.0
    for (a, b, c, d), target, readable in cases:
        x3, x4 = sorted((target[0], target[2]))
        y3, y4 = sorted((target[1], target[3]))
        brackets = "[[{}]]" if readable else "[{}]"
        records.append(scored(brackets.format(f"{a},{b},{c},{d}"), [x3, y3, x4, y4], (1000, 1000)))
        area = (x4 - x3 + 1) * (y4 - y3 + 1)
        both = max(0, min(c, x4) - max(a, x3) + 1) * max(0, min(d, y4) - max(b, y3) + 1) if readable else 0
        union = (c - a + 1) * (d - b + 1) + area - both if readable else area
        ious.append(both / union if union else 0.0)
        inner, outer = inner + both, outer + union
    found = plain_values(DiorRsvg(), records)
    n = len(cases)
    for threshold in (0.5, 0.25, 0.75):
        expected = 100 * sum(value > threshold for value in ious) / n
        assert found[f"acc_{threshold}"] == pytest.approx(expected, abs=1e-9)
    assert found["mean_iou"] == pytest.approx(100 * sum(ious) / n, abs=1e-9)
    if outer:
        assert found["cumulative_iou"] == pytest.approx(100 * inner / outer, abs=1e-9)


def test_a_very_long_answer_is_scored() -> None:
    assert scored("[[1,2," * 3_000_000, [0, 0, 9, 9]).flags == ("unparsed",)


# Real and drawn files -----------------------------------------------------------------------------------


def test_the_excerpt_alone_is_refused_and_resolves_when_whole(shared_dir: Path, tmp_path: Path) -> None:
    root = shared_dir / "data" / "dior-rsvg"
    if not root.is_dir():
        pytest.skip("no DIOR-RSVG excerpt")
    with pytest.raises(DataError, match=r"holds 1 objects, but .* name 38320"):
        list(DiorRsvg().samples("test", root))
    for folder in ("Annotations", "JPEGImages"):
        shutil.copytree(root / folder, tmp_path / folder)
    (tmp_path / "test.txt").write_text("0\n", encoding="utf-8")
    (sample,) = DiorRsvg().samples("test", tmp_path)
    assert sample.turns == ("<ref>a green and brown golf field</ref>",)
    assert sample.target == [133, 237, 684, 672]
    assert list(sample.images[0].open().size) == sample.data["size"] == [800, 800]


def test_miniature(tmp_path: Path) -> None:
    task = DiorRsvg()
    task.data_source.draw(tmp_path)
    samples = list(task.samples("miniature", tmp_path))
    answers = {}
    for sample in samples:
        width, height = sample.data["size"]
        scale = (width, height, width, height)
        box = ", ".join(f"{1000 * v / s:.4f}" for v, s in zip(sample.target, scale, strict=True))
        answers[sample.id] = f"<box>[[{box}]]</box>"
    found = plain_values(task, records_of(task, "miniature", tmp_path, answers))
    assert found["acc_0.75"] == 100.0
    assert found["mean_iou"] == pytest.approx(100.0, abs=0.1)
    assert set(plain_values(task, records_of(task, "miniature", tmp_path, "?")).values()) == {0.0}


def test_the_page_draws_both_boxes_and_the_targets_alone_without_an_answer() -> None:
    overlay = DiorRsvg.overlay
    assert overlay is not None
    record = Record("1", "1", "", [1, 2, 3, 4], [5, 6, 7, 8], data={"size": [800, 600]})
    found = [(region.role, region.corners, region.size) for region in overlay.regions(record)]
    assert found == [("target", (5, 6, 7, 8), (800, 600)), ("prediction", (1, 2, 3, 4), (800, 600))]
    unread = replace(record, prediction=None)
    assert [region.role for region in overlay.regions(unread)] == ["target"]
