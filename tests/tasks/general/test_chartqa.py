"""ChartQA: layouts, prompts, scores by protocol, broken files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from general_tables import plain_values, png, prompt, records_of, values

from evalkit.errors import DataError
from evalkit_tasks.general.chartqa import ChartQA

ITEM = {"imgname": "1.png", "query": "How many?", "label": "100"}


def official(root: Path, human: object, augmented: object, split: str = "test") -> Path:
    folder = root / split
    (folder / "png").mkdir(parents=True)
    (folder / "png" / "1.png").write_bytes(png())
    (folder / f"{split}_human.json").write_text(json.dumps(human), encoding="utf-8")
    (folder / f"{split}_augmented.json").write_text(json.dumps(augmented), encoding="utf-8")
    return root


@pytest.mark.parametrize("folder", ["", "ChartQA Dataset"])
@pytest.mark.parametrize("split", ["test", "val"])
def test_official_layout(tmp_path: Path, folder: str, split: str) -> None:
    official(tmp_path / folder, [ITEM, ITEM], [ITEM], split)
    samples = list(ChartQA().samples(split, tmp_path))
    assert [sample.id for sample in samples] == ["human-0", "human-1", "augmented-0"]
    assert {sample.cluster for sample in samples} == {"1.png"}
    assert all(sample.images[0].open().size == (4, 3) for sample in samples)
    assert all(file.find(tmp_path) for file in ChartQA().data_source.files_of(split))


def test_qwen_layout(tmp_path: Path) -> None:
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "1.png").write_bytes(png())
    line = {"image": "data/chartqa/test/png/1.png", "question": "How many?", "question_id": 0, "answer": "14"}
    for subset in ("human", "augmented"):
        (tmp_path / f"test_{subset}.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    samples = list(ChartQA().samples("test", tmp_path))
    assert [sample.id for sample in samples] == ["human-0", "augmented-0"]
    assert samples[0].images[0].open().size == (4, 3)
    assert samples[0].target == ["14"]


def test_a_missing_image_fails_its_sample_alone(tmp_path: Path) -> None:
    official(tmp_path, [ITEM, {**ITEM, "imgname": "2.png"}], [ITEM])
    assert [s.images[0].digest() == "missing" for s in ChartQA().samples("test", tmp_path)] == [
        False,
        True,
        False,
    ]


def test_prompts_and_settings(tmp_path: Path) -> None:
    official(tmp_path, [ITEM], [ITEM])
    assert (
        prompt(ChartQA(), "test", tmp_path) == "How many? Answer the question using a single word or phrase."
    )
    assert prompt(ChartQA("vlmevalkit"), "test", tmp_path) == (
        "How many?\nAnswer the question using a single word or phrase."
    )
    assert (
        prompt(ChartQA("lmms-eval"), "test", tmp_path) == "How many?\nAnswer the question with a single word."
    )
    limits = [ChartQA(p).generation.max_new_tokens for p in ("paper", "vlmevalkit", "lmms-eval")]
    assert limits == [100, 4096, 16]
    assert [ChartQA(p).image_policy.max_tiles for p in ("paper", "vlmevalkit", "lmms-eval")] == [12, 12, 6]


@pytest.mark.parametrize(
    ("truth", "text", "paper", "vlmevalkit", "lmms"),
    [
        ("100", "105.2", 1, 0, 0),
        ("100", "95", 0, 1, 1),
        ("Yes", " yes ", 1, 1, 1),
        ("[2012, 2013]", "2012", 0, 1, 0),
        ("[2012, 2013]", "[2012, 2013]", 1, 0, 1),
        ("14", "", 0, 0, 0),
    ],
)
def test_scores_by_protocol(
    tmp_path: Path, truth: str, text: str, paper: int, vlmevalkit: int, lmms: int
) -> None:
    official(tmp_path, [{**ITEM, "label": truth}], [{**ITEM, "label": "no such"}])
    for protocol, expected in (("paper", paper), ("vlmevalkit", vlmevalkit), ("lmms-eval", lmms)):
        task = ChartQA(protocol)
        found = plain_values(task, records_of(task, "test", tmp_path, text))
        assert found == {"average": 50.0 * expected, "human": 100.0 * expected, "augmented": 0.0}


def test_the_average_is_of_the_subsets(tmp_path: Path) -> None:
    official(tmp_path, [{**ITEM, "label": "a"}], [{**ITEM, "label": "b"}] * 3)
    task = ChartQA()
    records = records_of(task, "test", tmp_path, "a")
    assert plain_values(task, records) == {"average": 50.0, "human": 100.0, "augmented": 0.0}
    assert values(task, records[:1])["average"].value is None


def test_malformed_files(tmp_path: Path) -> None:
    task = ChartQA()
    with pytest.raises(DataError, match="holds none of test/test_human"):
        list(task.samples("test", tmp_path))
    official(tmp_path, [ITEM], [{"imgname": "1.png", "query": "x"}])
    with pytest.raises(DataError, match=r"test_augmented.json item 0: field 'label' missing"):
        list(task.samples("test", tmp_path))
    (tmp_path / "test" / "test_human.json").write_text('[{"imgname": "1.png', encoding="utf-8")
    with pytest.raises(DataError, match=r"test_human.json: broken JSON at line 1"):
        list(task.samples("test", tmp_path))
    (tmp_path / "test" / "test_human.json").write_text(
        json.dumps([{**ITEM, "imgname": "../../x"}]), encoding="utf-8"
    )
    with pytest.raises(DataError, match="must lie under the data root"):
        list(task.samples("test", tmp_path))
    (tmp_path / "test" / "test_human.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="expected a list"):
        list(task.samples("test", tmp_path))


def test_real_samples(shared_dir: Path) -> None:
    task = ChartQA()
    root = shared_dir / "data" / "chartqa"
    samples = list(task.samples("test", root))
    assert [sum(s.tags["subset"] == name for s in samples) for name in ("human", "augmented")] == [26, 19]
    assert len({sample.cluster for sample in samples}) == 23
    assert all(sample.images[0].open() for sample in samples)
    answers = {sample.id: sample.target[0] for sample in samples}
    zeros = {sample.id for sample in samples if sample.target[0] in ("0", "0%")}
    assert plain_values(task, records_of(task, "test", root, answers))["average"] == 100.0 and not zeros
