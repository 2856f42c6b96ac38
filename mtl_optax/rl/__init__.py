"""Multi-task reinforcement learning: MT-SAC, in whose optimisers any method may stand.

The algorithm is ordinary; the gradients of the tasks go through a chain that the user
writes. Nothing else in the library imports it: `from mtl_optax import rl`.
"""

from mtl_optax.rl import replay
from mtl_optax.rl.environment import Env, Stepped
from mtl_optax.rl.mtsac import Agent, AgentState, Info, mtsac
from mtl_optax.rl.networks import (
    Network,
    independent,
    multi_head,
    one_hot_mlp,
    soft_modules,
    twin,
)
from mtl_optax.rl.replay import Batch, Buffer

__all__ = [
    "mtsac",
    "Agent",
    "AgentState",
    "Info",
    "Network",
    "multi_head",
    "one_hot_mlp",
    "soft_modules",
    "independent",
    "twin",
    "replay",
    "Env",
    "Stepped",
    "Batch",
    "Buffer",
]
