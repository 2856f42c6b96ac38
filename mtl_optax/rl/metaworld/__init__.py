"""Meta-World through Gymnasium, with the extra `rl`."""

from mtl_optax.rl.metaworld.checkpoint import Refused
from mtl_optax.rl.metaworld.environments import MT10, Stepped, make_envs, reset, step
from mtl_optax.rl.metaworld.evaluation import evaluate
from mtl_optax.rl.metaworld.loop import Run, Settings, train

__all__ = [
    "MT10",
    "Refused",
    "Run",
    "Settings",
    "Stepped",
    "evaluate",
    "make_envs",
    "reset",
    "step",
    "train",
]
