"""Benchmarks of the Mini-InternVL paper, one file each, by domain."""

from __future__ import annotations

from evalkit.task import Task
from evalkit_tasks.driving.bdd_x import BddX
from evalkit_tasks.driving.drivelm import DriveLM
from evalkit_tasks.driving.mme_realworld import MMERealWorldDriving
from evalkit_tasks.general.ai2d import AI2D
from evalkit_tasks.general.chartqa import ChartQA
from evalkit_tasks.general.docvqa import DocVQA, InfographicVQA
from evalkit_tasks.general.mathvista import MathVista
from evalkit_tasks.general.mmbench import MMBench
from evalkit_tasks.general.mmmu import MMMU
from evalkit_tasks.general.ocrbench import OCRBench
from evalkit_tasks.general.textvqa import TextVQA
from evalkit_tasks.medical.gmai_mmbench import GmaiMmbench
from evalkit_tasks.remote_sensing.dior_rsvg import DiorRsvg
from evalkit_tasks.remote_sensing.rsvqa import RsvqaHr, RsvqaLr

#: Every task, in the order of `evalkit list tasks`.
TASKS: tuple[type[Task], ...] = (
    MMMU,
    MathVista,
    AI2D,
    ChartQA,
    DocVQA,
    InfographicVQA,
    OCRBench,
    MMBench,
    TextVQA,
    DriveLM,
    BddX,
    MMERealWorldDriving,
    GmaiMmbench,
    RsvqaLr,
    RsvqaHr,
    DiorRsvg,
)
