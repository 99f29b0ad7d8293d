"""Every random number of training is a function of (seed, step, rank), so no generator's state is stored."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds Python, numpy and torch (all devices) for one step of one rank."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    value = int.from_bytes(digest[:8], "big")
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value % 2**63)
