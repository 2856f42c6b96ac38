"""Models on which the exact Gramian is tested, small, and timed, large.

>>> params, losses_fn, batch = MODELS["heads"]("small")
>>> sorted(losses_fn(params, *batch))
['task0', 'task1', 'task2', 'task3']
"""

from benchmarks.zoo_attention import ATTENTION
from benchmarks.zoo_dense import DENSE
from benchmarks.zoo_other import OTHER
from benchmarks.zoo_parts import Model
from benchmarks.zoo_programs import PROGRAMS

__all__ = ["LOW_PRECISION", "MODELS", "Model", "WITH_AUX"]

# By name, functions of the size, "small" or "large".
MODELS = {model.__name__: model for model in (*DENSE, *PROGRAMS, *ATTENTION, *OTHER)}
# Those whose losses function returns `(losses, aux)`.
WITH_AUX = {"cnn_training"}
# Those that compute in bfloat16.
LOW_PRECISION = {"bf16_compute"}
