"""Texts of `show`, `reproduce` and `run --dry-run`, word for word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from evalkit.cli import dry_run, stored_runs
from evalkit.pipeline.reproduce import Change, Reproduction

ROW: dict[str, Any] = {
    "id": "q\n1",
    "cluster": "c1",
    "images": ["a.png", "b.png"],
    "tags": {"kind": "count", "size": "small"},
    "question": "How many?\nCount.",
    "error_kind": None,
    "error_message": None,
    "finish": "length",
    "text": "two\nor three",
    "prediction": ["é", 2],
    "target": {"a": 1},
    "scores": {"accuracy": 0.0, "iou": 0.123456, "chatgpt": None},
    "flags": ["truncated", "near_miss"],
    "repeats": [{"text": "two", "scores": {"accuracy": 1.0}}, {"text": "x" * 90, "scores": {}}],
    "data": {"reasoning": "I see\ntwo.", "near_miss": "case"},
    "prompt_tokens": 5,
    "visual_tokens": 256,
    "new_tokens": 7,
    "seconds": 0.456,
}


def test_a_sample_is_shown_with_all_that_is_known_of_it() -> None:
    assert stored_runs._sample_text(ROW) == (
        "sample    q\\n1\ncluster   c1\nimage     a.png\nimage     b.png\nkind: count\nsize: small\n\n"
        "question\n  How many?\n  Count.\n\nreasoning (not scored)\n  I see\n  two.\n\n"
        "answer (cut by max_new_tokens)\n  two\n  or three\n\n"
        'read as   ["é", 2]\ntarget    {"a": 1}\naccuracy  0\niou       0.1235\nchatgpt   -\n'
        "flags     truncated, near_miss\nrepeat 1  two  accuracy 1\n"
        f"repeat 2  {'x' * 79}…\n"
        "near miss case: the official rule counts it wrong\n"
        "tokens    5 of text, 256 of images, 7 generated, 0.46 s"
    )


def test_a_sample_without_answer_is_shown_with_the_cause() -> None:
    bare = {"images": [], "tags": {}, "scores": {}, "flags": [], "repeats": None, "data": None}
    failed = {**ROW, **bare, "error_kind": "image", "error_message": "no\tfile"}
    assert stored_runs._sample_text(failed) == (
        "sample    q\\n1\ncluster   c1\n\nquestion\n  How many?\n  Count.\n\n"
        'no answer (image): no file\ntarget    {"a": 1}\n'
        "tokens    5 of text, 256 of images, 7 generated, 0.46 s"
    )
    answered = stored_runs._sample_text({**ROW, **bare, "finish": "stop"})
    assert "\n\nanswer\n  two\n  or three\n\nread as" in answered and "near miss" not in answered


def test_wrong_and_failed_samples_are_listed_up_to_200() -> None:
    assert stored_runs._wrong_text([], "wrong answers") == "no wrong answers"
    assert stored_runs._failed_text([]) == "every sample has an answer"
    text = stored_runs._wrong_text([ROW], "wrong answers")
    assert text.splitlines()[0] == "1 wrong answers" and "more" not in text
    assert re.split(r" {2,}", text.splitlines()[-1]) == ["q\\n1", '{"a": 1}', "two\\nor three", "case"]
    failed = {**ROW, "error_kind": "image", "error_message": "m" * 400}
    for count in (200, 201):
        rows = [{**failed, "id": str(place)} for place in range(count)]
        for text in (stored_runs._wrong_text(rows, "wrong"), stored_runs._failed_text(rows)):
            assert ("\n… and 1 more; --json has all" in text) == (count == 201), text[-60:]
            assert "\n199 " in text and "\n200 " not in text


def test_a_reproduction_tells_what_differs() -> None:
    def lines(answers: int, values: int = 0) -> list[str]:
        return stored_runs._lines(
            Reproduction(
                Path("old"), Path("new"), 20,
                tuple(Change(f"s{place}", "a\nb", "error: image") for place in range(answers)),
                tuple(Change(f"m{place}", 1.5, None) for place in range(values)),
                (Change("torch", None, "2.0"), Change("numpy", "1.0", None)),
                ("a note",),
            )
        )  # fmt: skip

    versions = ["torch not installed, now 2.0", "numpy 1.0, now not installed", "a note"]
    assert lines(0) == ["run    old", "again  new", "", *versions, "equal: all 20 answers are the same"]
    changed = [f"s{place}: 'a\\\\nb', now 'error: image'" for place in range(10)]
    end = "differs: {} of 20 answers are the same, {} values differ"
    assert lines(10)[3:] == [*changed, *versions, end.format(10, 0)]
    more = "… and 1 more (--json has all)"
    assert lines(11, 1)[3:] == [*changed, more, "m0: 1.5, now None", *versions, end.format(9, 1)]
    assert lines(0, 1)[3:] == ["m0: 1.5, now None", *versions, end.format(20, 1)]


def test_a_forecast_is_told_for_both_ways() -> None:
    forecast = {
        "shared": {"encoded": 10, "prefilled": 20, "seconds": 65.0},
        "one_by_one": {"encoded": 30, "prefilled": 40, "seconds": 3723.0},
        "memory_bytes": 3 * 2**29,
        "cpu_flops": 55.4e9,
    }
    assert dry_run._forecast_lines(forecast) == [
        "encoded    10 image tokens with prefix caching, 30 without",
        "prefill    20 prompt tokens with prefix caching, 40 without",
        "time       about 1:05 on this CPU (55 GFLOP/s in float32 now), 1:02:03 one question at a time; "
        "less on a GPU",
        "memory     about 1.50 GiB: weights, keys and values in bfloat16",
    ]
