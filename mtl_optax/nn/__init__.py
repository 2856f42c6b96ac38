"""Flax NNX modules for networks of several tasks; needs flax, and is imported as such.

Nothing else in the library imports it: `import mtl_optax.nn`. All networks keep one
contract. Called with inputs they return a dict from tasks to outputs. What belongs to a
task stands under `own`, see `owner` and `shared`. Auxiliary terms are values: the method
`with_auxiliary` returns outputs and a dict from tasks to a scalar, which the caller adds
to the task's loss.
"""

from mtl_optax.nn.hard_sharing import HardSharing
from mtl_optax.nn.self_auxiliary import SelfAuxiliary, strip_auxiliaries
from mtl_optax.nn.sharing import owner, shared
from mtl_optax.nn.soft_modular import SoftModularNet
from mtl_optax.nn.task_batch_norm import TaskBatchNorm
from mtl_optax.nn.temperature_weights import temperature_task_weights

__all__ = [
    "HardSharing",
    "SelfAuxiliary",
    "SoftModularNet",
    "TaskBatchNorm",
    "owner",
    "shared",
    "strip_auxiliaries",
    "temperature_task_weights",
]
