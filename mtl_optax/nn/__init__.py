"""Flax NNX modules for networks of several tasks; needs flax, and is imported as such.

In the library the study, `rl` and `training` alone import it: `import mtl_optax.nn`.
All networks keep one contract. Called with inputs they return a dict from tasks to
outputs. What belongs to a task stands under `own`, see `owner` and `shared`. Auxiliary
terms are values: the method `with_auxiliary` returns outputs and a dict from tasks to a
scalar, which the caller adds to the task's loss (that of `SelfAuxiliary` takes
`losses_of` for it). Randomness and schedules are arguments. Linen users wrap a function
that builds the network:

>>> import jax, jax.numpy as jnp
>>> from flax import nnx
>>> from mtl_optax.nn import HardSharing, shared
>>> def build(rngs):
...     heads = {task: nnx.Linear(4, 1, rngs=rngs) for task in ("a", "b")}
...     return HardSharing(nnx.Linear(3, 4, rngs=rngs), heads)
>>> net = nnx.bridge.to_linen(build)
>>> variables = net.init(jax.random.key(0), jnp.ones((2, 3)))
>>> shared(variables["params"])["encoder"]
{'bias': True, 'kernel': True}
>>> sorted(net.apply(variables, jnp.ones((2, 3))))
['a', 'b']
"""

from mtl_optax.nn.backbones import ConvBackbone, ViTBackbone
from mtl_optax.nn.bayes_linear import BayesLinear
from mtl_optax.nn.blocks import FuseScales
from mtl_optax.nn.cgc import CGC
from mtl_optax.nn.cross_stitch import CrossStitch
from mtl_optax.nn.ctal import CTAL, AffinityLearning
from mtl_optax.nn.deeplab import DeepLabHead
from mtl_optax.nn.dense_losses import depth_loss, normal_loss, segmentation_loss
from mtl_optax.nn.dselect_k import DSelectK
from mtl_optax.nn.ema_net import EMANet
from mtl_optax.nn.embedding import MLP, ColumnEmbedding
from mtl_optax.nn.hard_sharing import HardSharing
from mtl_optax.nn.ltb import LTB, ltb_schedule
from mtl_optax.nn.mmoe import MMoE
from mtl_optax.nn.molecule import DistanceNet
from mtl_optax.nn.mtan import MTAN
from mtl_optax.nn.multi_scale_ema_net import MultiScaleEMANet
from mtl_optax.nn.ple import PLE
from mtl_optax.nn.resnet import ResNet
from mtl_optax.nn.segnet import DenseHead, SegNet
from mtl_optax.nn.self_auxiliary import SelfAuxiliary, strip_auxiliaries
from mtl_optax.nn.sharing import owner, shared
from mtl_optax.nn.soft_modular import SoftModularNet
from mtl_optax.nn.surrogates import Surrogates, same_class_inputs
from mtl_optax.nn.task_batch_norm import TaskBatchNorm
from mtl_optax.nn.temperature_weights import temperature_task_weights
from mtl_optax.nn.vmtl import VMTL
from mtl_optax.nn.vmtl_losses import VMTLState, VMTLTerms, vmtl_init, vmtl_losses
from mtl_optax.nn.weights import Loaded, load_weights, save_weights

__all__ = [
    "AffinityLearning",
    "BayesLinear",
    "CGC",
    "ColumnEmbedding",
    "ConvBackbone",
    "CrossStitch",
    "CTAL",
    "DeepLabHead",
    "DenseHead",
    "DistanceNet",
    "DSelectK",
    "EMANet",
    "FuseScales",
    "HardSharing",
    "Loaded",
    "LTB",
    "MLP",
    "MMoE",
    "MTAN",
    "MultiScaleEMANet",
    "PLE",
    "ResNet",
    "SegNet",
    "SelfAuxiliary",
    "SoftModularNet",
    "Surrogates",
    "TaskBatchNorm",
    "ViTBackbone",
    "VMTL",
    "VMTLState",
    "VMTLTerms",
    "depth_loss",
    "load_weights",
    "ltb_schedule",
    "normal_loss",
    "owner",
    "same_class_inputs",
    "save_weights",
    "segmentation_loss",
    "shared",
    "strip_auxiliaries",
    "temperature_task_weights",
    "vmtl_init",
    "vmtl_losses",
]
