"""Order of requests, subsets, overrides, signatures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import Generation, ImagePolicy, Message, Request, Sample
from evalkit.data.images import ImageFile
from evalkit.errors import UsageError
from evalkit.pipeline.cost_estimate import tile_count
from evalkit.pipeline.overrides import Overrides, parse_gen
from evalkit.pipeline.plan import Plan, make_plan, select


def request(name: str, picture: str | None, *texts: str) -> Request:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(texts))  # type: ignore[arg-type]
    return Request(name, messages, (ImageFile(picture),) if picture else ())


def samples(clusters: list[int]) -> list[Sample]:
    return [Sample(str(i), ("q",), (), None, str(cluster)) for i, cluster in enumerate(clusters)]


@given(st.lists(st.tuples(st.integers(0, 5), st.text(max_size=5)), max_size=60))
@settings(deadline=None, max_examples=60)
def test_a_plan_asks_everything_once_and_keeps_pictures_together(asked) -> None:
    requests = [request(str(i), f"p{picture}", text) for i, (picture, text) in enumerate(asked)]
    plan = make_plan(requests)
    order = [position for group in plan.groups for position in group]
    assert sorted(order) == list(range(len(requests)))
    pictures = [asked[position][0] for position in order]
    changes = sum(left != right for left, right in pairwise(pictures))
    assert changes == max(0, len(set(pictures)) - 1)


def test_inside_a_group_prefix_then_length_decide() -> None:
    requests = [
        request("0", "p", "long question"),
        request("1", "p", "story", "yes", "short"),
        request("2", "p", "q"),
        request("3", "p", "story", "yes", "a"),
    ]
    (group,) = make_plan(requests).groups
    assert group == (2, 0, 3, 1)


def turns_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 3), st.sampled_from(["", "a", "bc"]), st.text(max_size=3)))
)
@settings(deadline=None, max_examples=60)
def test_the_order_is_pictures_then_prefix_then_length_then_place(asked) -> None:
    requests = [
        request(str(i), picture and f"p{picture}", *([earlier, "yes"] if earlier else []), text)
        for i, (picture, earlier, text) in enumerate(asked)
    ]
    first: dict[int, int] = {}
    keys = []
    for i, (picture, earlier, text) in enumerate(asked):
        place = first.setdefault(picture, i) if picture else i
        keys.append((place, turns_hash(f"user\0{earlier}\0assistant\0yes") if earlier else 0, len(text), i))
    plan = make_plan(requests)
    assert [i for group in plan.groups for i in group] == [key[-1] for key in sorted(keys)]
    assert [len({keys[i][0] for i in group}) for group in plan.groups] == [1] * len({key[0] for key in keys})


def test_a_plan_for_workers_holds_what_is_pending() -> None:
    requests = [request(str(i), f"p{i // 3}", "q" * (i % 3)) for i in range(60)]
    plan, pending = make_plan(requests), set(range(0, 60, 4))
    expected = [tuple(i for i in group if i % 4 == 0) for group in plan.groups]
    assert plan.pending(pending) == [group for group in expected if group]
    assert plan.size == 60 and not plan.pending(set()) and not make_plan([]).pending(set())


def test_requests_without_pictures_are_not_one_group() -> None:
    plan = make_plan(request(str(i), None, "q") for i in range(1000))
    assert len(plan.groups) == 1000


def test_a_resumed_plan_is_the_rest_of_the_same_order() -> None:
    requests = [request(str(i), f"p{i % 7}", "q" * (i % 5)) for i in range(100)]
    plan = make_plan(requests)
    pending = set(random.Random(0).sample(range(100), 40))
    rest = [i for group in plan.pending(pending) for i in group]
    whole = [i for group in plan.groups for i in group]
    assert rest == [i for i in whole if i in pending]


def test_images_under_another_policy_are_another_group() -> None:
    few = dataclasses.replace(request("1", "p", "q"), image_policy=ImagePolicy(max_tiles=1))
    assert len(make_plan([request("0", "p", "q"), few, request("2", "p", "q")]).groups) == 2


def test_requests_carry_the_number_of_their_group() -> None:
    asked = [request(str(place), name, "q") for place, name in enumerate(["a", "b", None, "a", None, "b"])]
    plan = make_plan(asked)
    numbered = [plan.numbered(asked.__getitem__)(place) for place in range(len(asked))]
    assert [each.group for each in numbered] == [0, 1, 2, 0, 3, 1]
    assert numbered == asked and [each.key() for each in numbered] == [each.key() for each in asked]
    part = Plan(plan.pending({1, 3, 5}))
    assert [part.numbered(asked.__getitem__)(place).group for place in (3, 1, 5)] == [0, 1, 1]


def test_a_huge_group_is_torn() -> None:
    plan = make_plan(request(str(i), "p", "q") for i in range(5000))
    assert [len(group) for group in plan.groups] == [2048, 2048, 904]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.integers(1, 90), st.integers(0, 3))
@settings(deadline=None, max_examples=100)
def test_limits_nest_and_take_whole_clusters(clusters: list[int], limit: int, seed: int) -> None:
    every = samples(clusters)
    chosen = select(every, limit, (), seed)
    assert len(chosen) == min(limit, len(every))
    assert [int(s.id) for s in chosen] == sorted(int(s.id) for s in chosen)
    smaller = select(every, max(1, limit // 2), (), seed)
    assert {s.id for s in smaller} <= {s.id for s in chosen}
    names = {s.id for s in chosen}
    cut = [c for c in {s.cluster for s in chosen} if not all(s.id in names for s in every if s.cluster == c)]
    assert len(cut) <= 1
    for cluster in cut:  # in file order
        members = [s.id for s in every if s.cluster == cluster]
        kept = [name for name in members if name in names]
        assert kept == members[: len(kept)]


def test_a_limit_is_the_same_on_every_machine() -> None:
    every = samples([i // 3 for i in range(30)])
    assert [s.id for s in select(every, 4, (), 0)] == ["3", "24", "25", "26"]
    assert len({tuple(s.id for s in select(every, 4, (), seed)) for seed in range(8)}) > 4


def test_tiles_are_those_of_the_reference(shared_dir) -> None:
    path = shared_dir / "oracle" / "tiling.json"
    if not path.is_file():
        pytest.skip("no tiling oracle")
    for record in json.loads(path.read_text())["records"]:
        policy = ImagePolicy(record["min_num"], record["max_num"], record["use_thumbnail"])
        assert tile_count(record["width"], record["height"], policy) == record["tiles"], record


@pytest.mark.parametrize(
    ("size", "most", "tiles"),
    [
        ((448, 448), 12, 1),
        ((1600, 900), 12, 9),
        ((2688, 896), 12, 13),
        ((640, 480), 12, 13),
        ((1600, 900), 40, 29),
    ],
)
def test_known_tile_counts(size: tuple[int, int], most: int, tiles: int) -> None:
    assert tile_count(*size, ImagePolicy(max_tiles=most)) == tiles


def test_fixed_grids_and_no_thumbnail() -> None:
    assert tile_count(10, 10, ImagePolicy(grid=(3, 2))) == 7
    assert tile_count(1600, 900, ImagePolicy(thumbnail=False)) == 8


def test_settings_are_parsed_by_kind() -> None:
    items = ["max-new-tokens=5", "temperature=0.5", "stop=###", "id_field=qid", "seed=3"]
    generation, extra = parse_gen(items)
    assert generation == {"max_new_tokens": 5, "temperature": 0.5, "stop": ("###",), "seed": 3}
    assert extra == {"id_field": "qid"}


@pytest.mark.parametrize(
    "item",
    ["x", "=3", "max_new_tokens=0", "temperature=-1", "temperature=nan", "temperature=inf", "top_p=2"],
)
def test_settings_out_of_range_are_refused(item: str) -> None:
    with pytest.raises(UsageError):
        parse_gen([item])


def test_only_sampling_looks_at_the_seed() -> None:
    greedy = request("0", "p", "q")
    assert Overrides(seed=5).apply(greedy) is greedy
    sampled = Overrides(generation={"temperature": 1.0}, seed=5).apply(greedy)
    assert sampled.generation == Generation(temperature=1.0, seed=5)
    assert sampled.key() != greedy.key()


class _Content:
    """An image of known content."""

    def __init__(self, content: str) -> None:
        self.content = content

    def digest(self) -> str:
        return self.content


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text())),
    st.lists(st.text()),
    st.integers(1),
)
@settings(max_examples=50, deadline=None)
def test_a_request_key_is_the_hash_of_its_json(said: list[Any], contents: list[str], tokens: int) -> None:
    asked = Request(
        "id", tuple(Message(*turn) for turn in said), tuple(map(_Content, contents)),  # type: ignore[arg-type]
        Generation(max_new_tokens=tokens, stop=("\n", "\u00e9")), ImagePolicy(grid=(1, 2)),
    )  # fmt: skip
    body = {
        "messages": [list(turn) for turn in said],
        "images": contents,
        "generation": dataclasses.asdict(asked.generation),
        "image_policy": dataclasses.asdict(asked.image_policy),
    }
    text = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert asked.key() == hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def test_an_override_that_changes_nothing_is_none() -> None:
    requests = [request("0", "p", "q")]
    given = Overrides(12, {"max_new_tokens": 100, "num_beams": 2})
    assert given.changed(requests) == {"num_beams": 2}
