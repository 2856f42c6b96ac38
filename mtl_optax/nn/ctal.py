"""Cross-task affinity learning, CTAL (Sinodinos and Armanfard), and its adapter."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.core.arguments import checks
from mtl_optax.nn.blocks import resized
from mtl_optax.nn.cross_task_affinity import diffuse, fused_affinity
from mtl_optax.nn.mixtures import names_of

Maps = dict[str, jax.Array]


class CTAL(nnx.Module):
    r"""Refines each task's features by how similar positions are to all tasks at once.

    With affinities :math:`S^k` between the P = HW positions of task k, the cosines of
    its features, fused over tasks into one A that all share,

    .. math::
      A_{qp} = b_p + \sum_k \sum_\delta W_{\delta k p} \, S^k_{q + \delta, p}
      \qquad
      y_k = (1 - \gamma) F_k + \gamma A^\top (V_k * F_k)

    where :math:`\delta` runs over 3×3 neighbours on the grid and :math:`V_k *` is a 3×3
    convolution of the task. NHWC.

    Args:
      num_tasks: K, a Python int.
      features: channels C of each task's map.
      grid: (H, W) of the maps, on which the number of parameters depends.
      gamma: share of the diffused values, a constant.
      tasks: names of the tasks, in the order of the kernel's third axis; "0", "1", ...,
        padded with zeros so that they sort.
      checkpoint: 0 stores the affinities for the backward pass; 1 computes them again
        there; n > 1 does so for P/n positions p after another, and P² numbers are
        never held. The result is the same.
      pool: affinities and values are those of means over pool × pool pixels, and what
        they add is enlarged again (bilinear). 1 as in the paper; more is our extension.
      dtype: of the computation, as in `flax.nnx.Conv`.
      rngs: for kernel and value convolutions.

    Shared: kernel [3, 3, K, P] and bias of the fusion. Auxiliary terms: none.
    P (9K + 1) + K (9C² + C) parameters.

    Raises:
      ValueError: for other than K names; if pool does not divide the grid, or
        checkpoint the number of positions; when called, for maps of another size than
        the grid or of other tasks.

    Cost: 4 B K P² C FLOPs for affinities and diffusion, and 18 B K P² for the fusion.
    A training step holds about 20 arrays of B P² numbers for K = 3, measured on a CPU;
    `checkpoint=8` a seventh of that on large grids, `pool=2` a fifteenth.
    `checkpoint=1` saved nothing there: the peak is in this layer's own backward pass.

    Invariances: A is that of features rescaled by any positive factor at each position.

    When not to use it: where images vary in size, or maps have more than a few thousand
    positions; see `pool`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import CTAL
      >>> def refined(maps):
      ...     return CTAL(2, 3, (4, 4), tasks=maps, rngs=nnx.Rngs(0))(maps)
      >>> maps = {"depth": jnp.ones((2, 4, 4, 3)), "normals": jnp.ones((2, 4, 4, 3))}
      >>> {task: y.shape for task, y in jax.eval_shape(refined, maps).items()}
      {'depth': (2, 4, 4, 3), 'normals': (2, 4, 4, 3)}

    References:
      Sinodinos and Armanfard, `Cross-Task Affinity Learning for Multitask Dense Scene
      Predictions <https://arxiv.org/abs/2401.11124>`_, WACV 2025, after a description
      of the authors' code. A position without features, which it divides by 1e-12, has
      affinity 0 here.
    """

    def __init__(
        self,
        num_tasks: int,
        features: int,
        grid: Sequence[int],
        gamma: float = 0.05,
        *,
        tasks: Iterable[str] | None = None,
        checkpoint: int = 0,
        pool: int = 1,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        height, width = grid
        if height % checks.static_int("pool", pool) or width % pool:
            raise ValueError(f"CTAL: pool={pool} does not divide grid={tuple(grid)}.")
        self.tasks = tuple(names_of("CTAL", num_tasks, tasks))
        self.grid = (height, width)
        self.gamma, self.checkpoint, self.pool = gamma, checkpoint, pool
        self.dtype = dtype
        positions = (height // pool) * (width // pool)
        if positions % max(checkpoint, 1):
            raise ValueError(
                f"CTAL: checkpoint={checkpoint} parts do not divide {positions} "
                "positions."
            )
        init = nnx.initializers.lecun_normal()  # over 9K inputs
        shape = (3, 3, len(self.tasks), positions)
        self.kernel = nnx.Param(init(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(positions))
        options = {"dtype": dtype, "rngs": rngs}
        self.own = nnx.Dict(
            {t: nnx.Conv(features, features, (3, 3), **options) for t in self.tasks}
        )

    def __call__(self, maps: Mapping[str, jax.Array]) -> Maps:
        """A map for each task, from maps `[B, H, W, C]`, in their dtype."""
        small = self._small(maps)
        values = [self.own[task](x) for task, x in zip(self.tasks, small, strict=True)]
        kernel, bias = self.kernel[...], self.bias[...]
        diffused = diffuse(small, values, kernel, bias, checkpoint=self.checkpoint)
        return {
            task: self._blend(x, maps[task])
            for task, x in zip(self.tasks, diffused, strict=True)
        }

    def fused(self, maps: Mapping[str, jax.Array]) -> jax.Array:
        """A `[B, P, P]`, q before p, of maps `[B, H, W, C]`."""
        return fused_affinity(self._small(maps), self.kernel[...], self.bias[...])

    def _small(self, maps: Mapping[str, jax.Array]) -> list[jax.Array]:
        """What affinities and values are taken of, in the order of the kernel."""
        self._check(maps)
        window = (self.pool, self.pool)
        inputs = [
            maps[task].astype(self.dtype or maps[task].dtype) for task in self.tasks
        ]
        if self.pool == 1:
            return inputs
        return [nnx.avg_pool(x, window, strides=window) for x in inputs]

    def _blend(self, diffused: jax.Array, x: jax.Array) -> jax.Array:
        wide = resized(diffused, self.grid)
        return (self.gamma * wide + (1 - self.gamma) * x).astype(x.dtype)

    def _check(self, maps: Mapping[str, jax.Array]) -> None:
        if set(maps) != set(self.tasks):
            raise ValueError(
                f"CTAL: maps are of tasks {sorted(maps)}, and it was built for "
                f"{sorted(self.tasks)}."
            )
        for task, x in maps.items():
            if x.shape[1:3] != self.grid:
                raise ValueError(
                    f"CTAL: the map of task {task!r} is {x.shape[1:3]}, and it was "
                    f"built for grid={self.grid}: each position has weights of its "
                    f"own. Build it with grid={x.shape[1:3]} (a fourth of the image in "
                    "EMANet), or resize the images."
                )


class AffinityLearning(nnx.Module):
    """`CTAL` on fewer channels, and for each task a layer to twice the size.

    For each task a 1×1 convolution to `features` channels; CTAL; a transposed
    convolution of 2×2 with stride 2, batch normalisation, ReLU and a 3×3 convolution.

    Args:
      tasks: names of the tasks.
      num_in: channels of each task's map.
      features: channels after it.
      grid: (H, W) of the maps.
      dtype: of the computation.
      rngs: for all layers.
      **options: of `CTAL`.

    Shared: the 1×1 convolutions, since all tasks depend on them through the affinities,
    and the fusion. Auxiliary terms: none.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import AffinityLearning
      >>> def refined(maps):
      ...     return AffinityLearning(maps, 6, 3, grid=(4, 4), rngs=nnx.Rngs(0))(maps)
      >>> maps = {"depth": jnp.ones((2, 4, 4, 6)), "normals": jnp.ones((2, 4, 4, 6))}
      >>> jax.eval_shape(refined, maps)["depth"].shape
      (2, 8, 8, 3)
    """

    def __init__(
        self,
        tasks: Sequence[str],
        num_in: int,
        features: int = 128,
        *,
        grid: Sequence[int],
        dtype: Any = None,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        layer = {"dtype": dtype, "rngs": rngs}
        self.tasks = tuple(tasks)
        self.narrow = nnx.Dict(
            {task: nnx.Conv(num_in, features, (1, 1), **layer) for task in tasks}
        )
        self.ctal = CTAL(
            len(self.tasks), features, grid, tasks=tasks, **options, **layer
        )
        self.own = nnx.Dict({task: Enlarge(features, **layer) for task in tasks})

    def __call__(self, maps: Mapping[str, jax.Array]) -> Maps:
        """Maps `[B, 2H, 2W, features]` of each task, from maps `[B, H, W, num_in]`."""
        narrow = {task: self.narrow[task](x) for task, x in maps.items()}
        return {task: self.own[task](x) for task, x in self.ctal(narrow).items()}


class Enlarge(nnx.Module):
    """Maps of twice the size."""

    def __init__(self, features: int, **options: Any):
        self.up = nnx.ConvTranspose(features, features, (2, 2), strides=2, **options)
        self.norm = nnx.BatchNorm(features, **options)
        self.out = nnx.Conv(features, features, (3, 3), **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, 2H, 2W, features]`."""
        return self.out(nnx.relu(self.norm(self.up(x))))
