"""Benchmarks of the Mini-InternVL paper, one file each, by domain."""

from __future__ import annotations

from evalkit.task import Task
from evalkit_tasks.driving.bdd_x import BddX
from evalkit_tasks.driving.drivelm import DriveLM
from evalkit_tasks.medical.gmai_mmbench import GmaiMmbench
from evalkit_tasks.remote_sensing.dior_rsvg import DiorRsvg
from evalkit_tasks.remote_sensing.rsvqa import RsvqaHr, RsvqaLr

#: Every task, in the order of `evalkit list tasks`.
TASKS: tuple[type[Task], ...] = (
    DriveLM,
    BddX,
    GmaiMmbench,
    RsvqaLr,
    RsvqaHr,
    DiorRsvg,
)
