"""Meta-World through Gymnasium, with the extra `rl`."""

from mtl_optax.rl.environment import Stepped
from mtl_optax.rl.metaworld.checkpoint import Refused
from mtl_optax.rl.metaworld.environments import MT10, make_envs
from mtl_optax.rl.metaworld.evaluation import evaluate
from mtl_optax.rl.metaworld.loop import train
from mtl_optax.rl.metaworld.programs import Run, Settings
from mtl_optax.rl.metaworld.stepping import reset, step

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
