"""Flax NNX modules for networks of several tasks; needs flax, and is imported as such.

Nothing else in the library imports it: `import mtl_optax.nn`.
"""

from mtl_optax.nn.task_batch_norm import TaskBatchNorm

__all__ = ["TaskBatchNorm"]
