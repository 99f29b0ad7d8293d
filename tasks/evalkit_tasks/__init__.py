"""Benchmarks of the Mini-InternVL paper, one file each, by domain."""

from __future__ import annotations

from evalkit.task import Task
from evalkit_tasks.driving.drivelm import DriveLM

#: Every task, in the order of `evalkit list tasks`.
TASKS: tuple[type[Task], ...] = (DriveLM,)
