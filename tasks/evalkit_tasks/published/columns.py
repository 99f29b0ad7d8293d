"""Which of our values belongs in which column of the paper's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from evalkit.task import MINIATURE


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a printed table.

    Attributes:
        heading: as printed. key: task and metric of the published data (`paper_tables.csv`).
        task, metric: where our value for it comes from; empty for a column that is computed from others.
        splits: splits whose value may stand there, the paper's first.
        decimals: as printed.
    """

    heading: str
    key: tuple[str, str]
    task: str = ""
    metric: str = ""
    splits: tuple[str, ...] = ()
    decimals: int = 2

    def accepts(self, split: str) -> bool:
        """Whether a run on `split` may stand in this column."""
        return split in self.splits


_TEST, _VAL = ("test", MINIATURE), ("val", MINIATURE)
_BDD_X = ("test", "val", MINIATURE)


def _table_2() -> Iterator[Column]:
    testmini, documents = ("testmini", MINIATURE), ("test", "val", MINIATURE)
    yield Column("MMMU", ("MMMU_val", "acc"), "mmmu", "accuracy", _VAL, decimals=1)
    yield Column("MathVista", ("MathVista_testmini", "acc"), "mathvista", "accuracy", testmini, decimals=1)
    yield Column("AI2D", ("AI2D", "acc"), "ai2d", "accuracy", _TEST, decimals=1)
    yield Column("ChartQA", ("ChartQA", "relaxed_acc"), "chartqa", "average", _TEST, decimals=1)
    yield Column("DocVQA", ("DocVQA", "anls"), "docvqa", "anls", documents, decimals=1)
    yield Column("InfoVQA", ("InfoVQA", "anls"), "infovqa", "anls", documents, decimals=1)
    yield Column("OCRBench", ("OCRBench", "score_of_1000"), "ocrbench", "score", _TEST, decimals=0)
    english, chinese = ("test-en", "dev-en", MINIATURE), ("test-cn", "dev-cn")
    yield Column("MMB-EN", ("MMBench_EN", "acc"), "mmbench", "circular", english, decimals=1)
    yield Column("MMB-CN", ("MMBench_CN", "acc"), "mmbench", "circular", chinese, decimals=1)
    yield Column("Avg. Score", ("Avg", "mean"), decimals=1)


def _table_4() -> Iterator[Column]:
    names = {
        "accuracy": ("Accuracy", 4),
        "chatgpt": ("ChatGPT", 2),
        **{f"bleu_{n}": (f"BLEU-{n}", 4) for n in range(1, 5)},
        "rouge_l": ("ROUGE-L", 4),
        "cider": ("CIDEr", 4),
        "match": ("Match", 2),
        "final_score": ("Final Score", 4),
    }
    for metric, (heading, decimals) in names.items():
        key = ("DriveLM_v1.1_val", metric)
        yield Column(heading, key, "drivelm", metric, ("val", "sample", MINIATURE), decimals)


def _table_5() -> Iterator[Column]:
    for heading, metric in (("Perception", "perception"), ("Reasoning", "reasoning"), ("Avg", "average")):
        yield Column(heading, (f"MME-RealWorld_AD_{heading}", "acc"), "mme-realworld-driving", metric, _TEST)


def _table_6() -> Iterator[Column]:
    for part in ("description", "justification", "full"):
        for metric, heading in (("cider", "C"), ("bleu_4", "B4"), ("rouge_l", "R")):
            key = (f"BDD-X_{part}", metric)
            yield Column(f"{part.capitalize()} {heading}", key, "bdd-x", f"{part}_{metric}", _BDD_X)


def _table_7() -> Iterator[Column]:
    for signal, task, heading in (
        ("speed", "BDD-X_speed_mps", "Speed"),
        ("angle", "BDD-X_turning_angle_deg", "Angle"),
    ):
        yield Column(f"{heading} RMSE", (task, "rmse"), "bdd-x", f"{signal}_rmse", _BDD_X)
        for tau in ("0.1", "0.5", "1.0", "5.0"):
            key = (task, f"A_{tau}")
            yield Column(f"{heading} A_{tau}", key, "bdd-x", f"{signal}_a_{tau}", _BDD_X)


def _table_9() -> Iterator[Column]:
    for part in ("Seg_C", "Seg_M", "2D_Cls", "2D_Det"):
        metric = "_".join(reversed(part.lower().split("_"))) if part.startswith("2D") else part.lower()
        yield Column(part.replace("_", " "), (f"GMAI-MMBench_{part}", "acc"), "gmai-mmbench", metric, _VAL)
    for heading, metric in (("acc", "mcls_2d_acc"), ("recall", "mcls_2d_recall")):
        key = ("GMAI-MMBench_2D_Mcls", heading)
        yield Column(f"2D Mcls {heading}", key, "gmai-mmbench", metric, _VAL)


def _table_11() -> Iterator[Column]:
    for heading, part, metric in (("R/U", "rural_urban", "rural_urban"), *_SHARED_11):
        yield Column(f"LR {heading}", (f"RSVQA-LR_{part}", "acc"), "rsvqa-lr", metric, _TEST)
    for split, accepted in (("test1", ("test1", MINIATURE)), ("test2", ("test2",))):
        for heading, part, metric in _SHARED_11:
            key = (f"RSVQA-HR-{split}_{part}", "acc")
            yield Column(f"HR-{split} {heading}", key, "rsvqa-hr", metric, accepted)
    yield Column("DIOR-RSVG", ("DIOR-RSVG_test", "acc@0.5"), "dior-rsvg", "acc_0.5", _TEST)


_SHARED_11 = (("P", "presence", "presence"), ("C", "compare", "compare"), ("Avg", "avg", "average"))


def _table_12() -> Iterator[Column]:
    yield Column("MMB-EN", ("MMBench_EN", "acc"), "mmbench", "circular", ("test-en", "dev-en"), decimals=1)
    yield Column("MMB-CN", ("MMBench_CN", "acc"), "mmbench", "circular", ("test-cn", "dev-cn"), decimals=1)
    yield Column("ChartQA", ("ChartQA_test", "relaxed_acc"), "chartqa", "average", ("test",), decimals=1)
    yield Column("DocVQA", ("DocVQA_val", "anls"), "docvqa", "anls", ("val",), decimals=1)
    yield Column("InfoVQA", ("InfoVQA_val", "anls"), "infovqa", "anls", ("val",), decimals=1)
    yield Column("MMMU", ("MMMU", "acc"), "mmmu", "accuracy", ("val",), decimals=1)
    driving = ("MME-RealWorld_AD", "acc")
    yield Column("MME-RealWorld AD", driving, "mme-realworld-driving", "average", ("test",), decimals=1)
    key = ("DriveLM_v1.1_val", "final_score")
    yield Column("DriveLM", key, "drivelm", "final_score", ("val",), decimals=3)


#: Columns by table number, for the tables that hold benchmark results.
COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "2": tuple(_table_2()),
    "4": tuple(_table_4()),
    "5": tuple(_table_5()),
    "6": tuple(_table_6()),
    "7": tuple(_table_7()),
    "9": tuple(_table_9()),
    "11": tuple(_table_11()),
    "12": tuple(_table_12()),
}

TITLES: Mapping[str, str] = {
    "2": "Table 2: general multimodal benchmarks",
    "4": "Table 4: DriveLM",
    "5": "Table 5: MME-RealWorld, autonomous driving",
    "6": "Table 6: BDD-X, action description and justification",
    "7": "Table 7: BDD-X, control signals (speed in m/s, turning angle in degrees)",
    "9": "Table 9: GMAI-MMBench",
    "11": "Table 11: remote sensing",
    "12": "Table 12: vision encoders",
}
