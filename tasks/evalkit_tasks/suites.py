"""Suites: task names by the table of the paper and by domain."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from evalkit.suite import Suite
from evalkit_tasks.published.tables import paper_table

_MEMBERS: Mapping[str, tuple[str, ...]] = {
    # MMBench, DocVQA and InfoVQA are the splits whose answers are public; the table's notes say so.
    "2": (
        *("mmmu", "mathvista", "ai2d", "chartqa", "docvqa", "infovqa", "ocrbench"),
        *("mmbench@dev-en", "mmbench@dev-cn"),
    ),
    "4": ("drivelm",),
    "5": ("mme-realworld-driving",),
    "6": ("bdd-x",),
    "7": ("bdd-x",),
    "9": ("gmai-mmbench",),
    "11": ("rsvqa-lr", "rsvqa-hr@test1", "rsvqa-hr@test2", "dior-rsvg"),
}

_DOMAINS: Mapping[str, tuple[str, ...]] = {
    "general": (
        *("mmbench", "chartqa", "docvqa", "infovqa", "textvqa"),
        *("ai2d", "ocrbench", "mmmu", "mathvista"),
    ),
    "driving": ("drivelm", "bdd-x", "mme-realworld-driving"),
    "medical": ("gmai-mmbench",),
    "remote-sensing": ("rsvqa-lr", "rsvqa-hr", "dior-rsvg"),
}

SUITES: tuple[Suite, ...] = (
    *(
        Suite(f"paper-table-{number}", members, partial(paper_table, number))
        for number, members in _MEMBERS.items()
    ),
    *(Suite(name, members) for name, members in _DOMAINS.items()),
)
