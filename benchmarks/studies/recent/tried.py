"""The new methods: what each is compared with, and the one setting that is tuned."""

from typing import NamedTuple


class Tried(NamedTuple):
    """How a method is tried."""

    relative: str  # the established method that is nearest to it
    grid: dict[str, tuple[float, ...]] = {}  # noqa: RUF012, read only


# In the order of what they need to see. A grid holds what the paper, or the authors'
# code, says is to be tuned: its values there, about.
NEW = {
    "uw_so": Tried("uw", {"temperature": (1.0, 10.0, 100.0)}),
    "uw_o": Tried("scale_invariant"),
    "ldc": Tried("famo", {"lam": (0.01, 0.05, 0.1)}),
    "go4align": Tried("famo"),
    "imgrad": Tried("cagrad", {"alpha": (0.4, 0.8)}),
    "conic": Tried("cagrad"),
    "balancer": Tried("imtl_g"),
    "epo": Tried("mgda"),
    "pmgda": Tried("mgda"),
    "sam_gs": Tried("aligned_mtl", {"gamma": (0.1, 0.5, 0.9)}),
    "metabalance": Tried("gradnorm", {"r": (0.3, 0.7)}),
    "samo": Tried("f_mean", {"beta": (0.1, 0.5)}),
    "auto_lambda": Tried("uw", {"outer": (1e-4, 1e-3)}),
    "moml": Tried("mgda", {"outer": (1e-3, 1e-2)}),
    "forum": Tried("mgda", {"outer": (1e-3, 1e-2)}),
}
RELATIVES = tuple(dict.fromkeys(tried.relative for tried in NEW.values()))
