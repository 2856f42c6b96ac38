"""mtl_optax: multi-task optimisation for JAX, as optax transformations.

Names are grouped by what a method needs to see, which is also the order of its cost.
"""

from mtl_optax.analysis.comparison import delta_m, delta_p
from mtl_optax.analysis.conflict import (
    conflict_fraction,
    cosine_similarity,
    magnitude_similarity,
)
from mtl_optax.analysis.task_groups import (
    select_task_groups,
    served_by,
    train_groups,
)
from mtl_optax.core.check_chain import check_chain
from mtl_optax.core.lazy import LazyTaskGrads
from mtl_optax.core.products import combine, gramian
from mtl_optax.core.subsample_tasks import subsample_tasks
from mtl_optax.core.task_gradients import (
    feature_task_grads,
    lazy_task_grads,
    task_grads,
)
from mtl_optax.core.task_gradients_at import task_grads_at
from mtl_optax.core.weighting import (
    Weighting,
    conflicts,
    from_weighting,
    task_weights,
)
from mtl_optax.from_grad_fn.flat_mtl import flat_mtl
from mtl_optax.from_gradients.graddrop import graddrop
from mtl_optax.from_gramian.aligned_mtl import aligned_mtl
from mtl_optax.from_gramian.cagrad import cagrad
from mtl_optax.from_gramian.imtl_g import imtl_g
from mtl_optax.from_gramian.mgda import mgda
from mtl_optax.from_gramian.nash_mtl import nash_mtl
from mtl_optax.from_gramian.pcgrad import pcgrad
from mtl_optax.from_gramian.upgrad import upgrad
from mtl_optax.from_losses.constant import constant
from mtl_optax.from_losses.mean import mean
from mtl_optax.from_losses.unitary import unitary
from mtl_optax.from_losses.uw import uw
from mtl_optax.wrappers.accumulate_tasks import accumulate_tasks
from mtl_optax.wrappers.every_k import every_k
from mtl_optax.wrappers.on_shared import on_shared
from mtl_optax.wrappers.per_task import per_task
from mtl_optax.wrappers.sam import drop_extra_args, safe_normalize
from mtl_optax.wrappers.skip_nonfinite_tasks import skip_nonfinite_tasks

__version__ = "0.1.0"

__all__ = [
    # From losses to per-task gradients, and the parts every method is made of.
    "LazyTaskGrads",
    "Weighting",
    "check_chain",
    "combine",
    "conflicts",
    "feature_task_grads",
    "from_weighting",
    "gramian",
    "lazy_task_grads",
    "subsample_tasks",
    "task_grads",
    "task_grads_at",
    "task_weights",
    # from_losses: one backward pass with lazy gradients.
    "constant",
    "mean",
    "unitary",
    "uw",
    # from_gramian: T backward passes.
    "aligned_mtl",
    "cagrad",
    "imtl_g",
    "mgda",
    "nash_mtl",
    "pcgrad",
    "upgrad",
    # from_gradients: T backward passes and T copies.
    "graddrop",
    # from_grad_fn: 2T backward passes or more.
    "flat_mtl",
    # Wrappers.
    "accumulate_tasks",
    "drop_extra_args",
    "every_k",
    "on_shared",
    "per_task",
    "safe_normalize",
    "skip_nonfinite_tasks",
    # Analysis.
    "conflict_fraction",
    "cosine_similarity",
    "delta_m",
    "delta_p",
    "magnitude_similarity",
    "select_task_groups",
    "served_by",
    "train_groups",
]
