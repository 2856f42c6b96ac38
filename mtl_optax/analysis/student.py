"""Student's t for whole degrees of freedom: finite sums, so no library is needed.

Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4.
"""

import math


def probability_within(t: float, freedom: int) -> float:
    """How often |T| < t, with 1 or more degrees of freedom."""
    return _within(math.atan(t / math.sqrt(freedom)), freedom)


def quantile(confidence: float, freedom: int) -> float:
    """The t that |T| stays below with this probability, between 0 and 1."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halvings, that is to rounding
        middle = (low + high) / 2
        if _within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(high)


def _within(angle: float, freedom: int) -> float:
    """Sums over powers of the cosine: odd ones, or even ones, up to freedom - 2."""
    cosine, odd = math.cos(angle), freedom % 2
    term, total = cosine**odd, 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
