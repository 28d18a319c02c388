"""How much happens at which hour of the day, for `postel demo`; pure."""

from __future__ import annotations

import math
import random

STEP_SECONDS = 15
STEPS = 86_400 // STEP_SECONDS


def hump(hour: float, middle: float, width: float) -> float:
    """A bell around an hour of the day, 1 at its middle."""
    return math.exp(-(((hour - middle) / width) ** 2))


def poisson(chance: random.Random, mean: float) -> int:
    """How many came, where ``mean`` come on the average."""
    # The normal approximation is near enough for a demo and takes one draw.
    return max(0, round(chance.gauss(mean, math.sqrt(mean)))) if mean > 0 else 0
