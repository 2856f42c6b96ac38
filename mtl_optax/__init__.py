"""mtl_optax: multi-task optimisation for JAX, as optax transformations.

Names are grouped by what a method needs to see, which is also the order of its cost.
"""

from mtl_optax.analysis.adam_scale import adam_scale_invariance
from mtl_optax.analysis.comparison import delta_m, delta_p
from mtl_optax.analysis.conflict import (
    conflict_fraction,
    cosine_similarity,
    magnitude_similarity,
)
from mtl_optax.analysis.conflict_summary import conflict_summary
from mtl_optax.analysis.pareto import simplex_lattice
from mtl_optax.analysis.pareto_front import ParetoFront, pareto_front
from mtl_optax.analysis.task_groups import (
    select_task_groups,
    served_by,
    train_groups,
)
from mtl_optax.analysis.watch_conflicts import watch_conflicts
from mtl_optax.core.aggregation import from_weighting
from mtl_optax.core.check_chain import check_chain
from mtl_optax.core.connection_strength import connection_strength
from mtl_optax.core.explain import explain
from mtl_optax.core.gramian_vjp import gramian_vjp
from mtl_optax.core.init_like import init_like
from mtl_optax.core.masked_mean import masked_mean
from mtl_optax.core.metrics import metrics
from mtl_optax.core.per_sample.per_sample_grads import per_sample_grads
from mtl_optax.core.precision_weighted import precision_weighted_mean
from mtl_optax.core.products import combine, gramian
from mtl_optax.core.readings import (
    conflicts,
    task_cosines,
    task_names,
    task_weights,
)
from mtl_optax.core.resize_tasks import resize_tasks
from mtl_optax.core.subsample_tasks import subsample_tasks
from mtl_optax.core.task_grads.at_features import feature_task_grads
from mtl_optax.core.task_grads.at_other_params import group_grads_at, task_grads_at
from mtl_optax.core.task_grads.from_losses_fn import lazy_task_grads, task_grads
from mtl_optax.core.task_grads.linearised import LazyTaskGrads
from mtl_optax.core.weighting import Weighting
from mtl_optax.from_grad_fn.auto_lambda import auto_lambda
from mtl_optax.from_grad_fn.cso import cso
from mtl_optax.from_grad_fn.flat_mtl import flat_mtl
from mtl_optax.from_grad_fn.forum import forum
from mtl_optax.from_grad_fn.moml import moml
from mtl_optax.from_grad_fn.samo import samo
from mtl_optax.from_grad_fn.selective_groups import selective_groups
from mtl_optax.from_grad_fn.task_affinity import task_affinity
from mtl_optax.from_gradients.cso_project import cso_project
from mtl_optax.from_gradients.db_mtl import db_mtl
from mtl_optax.from_gradients.excess_mtl import excess_mtl
from mtl_optax.from_gradients.graddrop import graddrop
from mtl_optax.from_gradients.mconfig import mconfig
from mtl_optax.from_gradients.moco import moco
from mtl_optax.from_gradients.sam_gs import sam_gs
from mtl_optax.from_gradients.trimmed_mean import trimmed_mean
from mtl_optax.from_gramian.aligned_mtl import aligned_mtl
from mtl_optax.from_gramian.balancer import balancer
from mtl_optax.from_gramian.cagrad import cagrad
from mtl_optax.from_gramian.cdtt import cdtt
from mtl_optax.from_gramian.conflictfree import conflictfree
from mtl_optax.from_gramian.conic import conic
from mtl_optax.from_gramian.dualproj import dualproj
from mtl_optax.from_gramian.epo import epo
from mtl_optax.from_gramian.fairgrad import fairgrad
from mtl_optax.from_gramian.gradnorm import gradnorm
from mtl_optax.from_gramian.gradvac import gradvac
from mtl_optax.from_gramian.imgrad import imgrad
from mtl_optax.from_gramian.imtl_g import imtl_g
from mtl_optax.from_gramian.krum import krum
from mtl_optax.from_gramian.metabalance import metabalance
from mtl_optax.from_gramian.mgda import mgda
from mtl_optax.from_gramian.modo import modo
from mtl_optax.from_gramian.nash_mtl import nash_mtl
from mtl_optax.from_gramian.pcd import pcd
from mtl_optax.from_gramian.pcgrad import pcgrad
from mtl_optax.from_gramian.pmgda import pmgda
from mtl_optax.from_gramian.sdmgrad import sdmgrad
from mtl_optax.from_gramian.upgrad import upgrad
from mtl_optax.from_losses.constant import constant
from mtl_optax.from_losses.cosmos import cosmos
from mtl_optax.from_losses.dwa import dwa
from mtl_optax.from_losses.famo import famo
from mtl_optax.from_losses.gls import gls
from mtl_optax.from_losses.go4align import go4align
from mtl_optax.from_losses.imtl_l import imtl_l
from mtl_optax.from_losses.ldc import ldc
from mtl_optax.from_losses.mean import mean
from mtl_optax.from_losses.nmt import nmt
from mtl_optax.from_losses.pbi import pbi
from mtl_optax.from_losses.rlw import rlw
from mtl_optax.from_losses.scale_invariant import scale_invariant
from mtl_optax.from_losses.stch import stch
from mtl_optax.from_losses.tchebycheff import tchebycheff
from mtl_optax.from_losses.unitary import unitary
from mtl_optax.from_losses.uw import uw
from mtl_optax.from_losses.uw_o import uw_o
from mtl_optax.from_losses.uw_so import uw_so
from mtl_optax.wrappers.accumulate_tasks import accumulate_tasks
from mtl_optax.wrappers.cr_mogm import cr_mogm
from mtl_optax.wrappers.divide import divide
from mtl_optax.wrappers.every_k import every_k
from mtl_optax.wrappers.on_shared import on_shared
from mtl_optax.wrappers.per_task import per_task
from mtl_optax.wrappers.sam import drop_extra_args, safe_normalize
from mtl_optax.wrappers.skip_nonfinite_tasks import skip_nonfinite_tasks
from mtl_optax.wrappers.son_goku import son_goku
from mtl_optax.wrappers.stale import stale

__version__ = "0.1.0"

__all__ = [
    # From losses to per-task gradients, and the parts every method is made of.
    "LazyTaskGrads",
    "Weighting",
    "check_chain",
    "combine",
    "conflicts",
    "connection_strength",
    "feature_task_grads",
    "from_weighting",
    "explain",
    "gramian",
    "gramian_vjp",
    "group_grads_at",
    "init_like",
    "lazy_task_grads",
    "masked_mean",
    "metrics",
    "per_sample_grads",
    "precision_weighted_mean",
    "resize_tasks",
    "subsample_tasks",
    "task_cosines",
    "task_grads",
    "task_grads_at",
    "task_names",
    "task_weights",
    # from_losses: one backward pass with lazy gradients.
    "constant",
    "cosmos",
    "dwa",
    "famo",
    "gls",
    "go4align",
    "imtl_l",
    "ldc",
    "mean",
    "nmt",
    "pbi",
    "rlw",
    "scale_invariant",
    "stch",
    "tchebycheff",
    "unitary",
    "uw",
    "uw_o",
    "uw_so",
    # from_gramian: at most T backward passes with lazy gradients.
    "aligned_mtl",
    "balancer",
    "cagrad",
    "cdtt",
    "conflictfree",
    "conic",
    "dualproj",
    "epo",
    "fairgrad",
    "gradnorm",
    "gradvac",
    "imgrad",
    "imtl_g",
    "krum",
    "metabalance",
    "mgda",
    "modo",
    "nash_mtl",
    "pcd",
    "pcgrad",
    "pmgda",
    "sdmgrad",
    "upgrad",
    # from_gradients: T backward passes and T copies.
    "cso_project",
    "db_mtl",
    "excess_mtl",
    "graddrop",
    "mconfig",
    "moco",
    "sam_gs",
    "trimmed_mean",
    # from_grad_fn: they ask again, at other parameters or on a second batch.
    "auto_lambda",
    "cso",
    "flat_mtl",
    "forum",
    "moml",
    "samo",
    "selective_groups",
    "task_affinity",
    # Wrappers.
    "accumulate_tasks",
    "cr_mogm",
    "divide",
    "drop_extra_args",
    "every_k",
    "on_shared",
    "per_task",
    "safe_normalize",
    "skip_nonfinite_tasks",
    "son_goku",
    "stale",
    # Analysis.
    "adam_scale_invariance",
    "conflict_fraction",
    "conflict_summary",
    "cosine_similarity",
    "delta_m",
    "delta_p",
    "magnitude_similarity",
    "ParetoFront",
    "pareto_front",
    "select_task_groups",
    "served_by",
    "simplex_lattice",
    "train_groups",
    "watch_conflicts",
]
