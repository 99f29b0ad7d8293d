"""Suites, targets and printed tables."""

from __future__ import annotations

import pytest

from evalkit import registry
from evalkit.errors import UsageError
from evalkit.suite import PrintedRow, Suite, Table, Target


def test_targets_of_names_lists_globs_and_suites() -> None:
    assert registry.targets(["rsvqa-lr"]) == [Target("rsvqa-lr")]
    assert registry.targets(["rsvqa-hr@test2,rsvqa-lr", "rsvqa-lr"]) == [
        Target("rsvqa-hr", "test2"),
        Target("rsvqa-lr"),
    ]
    assert registry.targets(["rsvqa*@miniature"]) == [
        Target("rsvqa-hr", "miniature"),
        Target("rsvqa-lr", "miniature"),
    ]
    assert Target("rsvqa-hr", "test1") in registry.targets(["paper-table-11"])
    names = [target.task for target in registry.targets(["paper-table-11"])]
    assert list(dict.fromkeys(names)) == ["rsvqa-lr", "rsvqa-hr", "dior-rsvg"]


def test_a_split_takes_the_place_of_a_suites_own() -> None:
    assert registry.targets(["paper-table-11"], "miniature") == [
        Target("rsvqa-lr", "miniature"),
        Target("rsvqa-hr", "miniature"),
        Target("dior-rsvg", "miniature"),
    ]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("rsvqa", None, "rsvqa-lr"),
        ("rsvqa-lr@test9", None, "no split 'test9'"),
        ("paper-table-11", "test2", "rsvqa-lr: no split 'test2'"),
        ("paper-table-3", None, "paper-table-"),
    ],
)
def test_unknown_names_and_splits(name: str, split: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        registry.targets([name], split)


def test_every_member_of_every_suite_exists() -> None:
    for suite in registry.suites().values():
        for target in suite.targets():
            assert target.task in registry.tasks()
            splits = registry.tasks()[target.task].splits
            assert target.split is None or target.split in splits


def test_suite_members_carry_splits() -> None:
    suite = Suite("s", ("a", "b@test"))
    assert suite.targets() == (Target("a"), Target("b", "test"))


def test_table_text_marks_our_rows_and_numbers_notes() -> None:
    table = Table(
        "Title",
        ("Accuracy", "B"),
        (
            PrintedRow("published", "2B", ("1.0", None), note="doubtful"),
            PrintedRow("模型", "", ("12.5", "3"), ours=True, note="other"),
        ),
        ("general",),
    )
    assert table.text().splitlines() == [
        "Title",
        "   model          size  Accuracy  B",
        "-" * 35,
        "   published [1]    2B       1.0  -",
        ">  模型 [2]                 12.5  3",
        "[1] doubtful",
        "[2] other",
        "[3] general",
    ]
