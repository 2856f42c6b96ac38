"""A message-passing network on molecules that are padded to one number of atoms."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.core.arguments import checks


class DistanceNet(nnx.Module):
    r"""Features of a molecule from its elements and the distances of its atoms.

    Each atom starts from a learned vector of its element. In each of the rounds it
    hears from all others within the cutoff, through filters of their distance:

    .. math:: h_i \leftarrow h_i + V \sigma \Big( \sum_{j \ne i} (U h_j) \odot
      f(d_{ij}) \, c(d_{ij}) \Big)

    with f a network on radial bumps of the distance, and c the cosine that falls from 1
    to 0 at the cutoff. A molecule has the sum, or the mean, over its atoms of a layer
    of h.

    Args:
      elements: numbers of elements are below this; 0 is no atom.
      width: features of atoms and molecules.
      rounds: of messages.
      cutoff: distance from which atoms do not hear one another, in the unit of the
        positions (Å in QM9).
      bumps: number of radial bumps, evenly spaced up to the cutoff.
      pool: "sum", for what grows with the molecule, or "mean".
      dtype: of the computation; distances are in the positions' own.
      rngs: for all layers.

    Raises:
      ValueError: for another `pool`.

    Invariances: to moves, rotations and reflections of the molecule, to the order of
    its atoms, and to padding.

    Cost: all pairs: :math:`B A^2` (bumps · width + width²) a round, and as much memory
    for :math:`B A^2` width numbers.

    When not to use it: on molecules of hundreds of atoms, where neighbour lists pay;
    where mirror images must differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import DistanceNet
      >>> net = DistanceNet(10, width=8, rounds=1, rngs=nnx.Rngs(0))
      >>> water = {
      ...     "atoms": jnp.array([[8, 1, 1, 0]]),  # and none
      ...     "positions": jnp.array(
      ...         [[[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0], [0.0] * 3]]
      ...     ),
      ... }
      >>> net(water).shape
      (1, 8)

    References:
      Schütt et al., `SchNet <https://arxiv.org/abs/1706.08566>`_, NeurIPS 2017, whose
      filters these are. Where we differ: a cutoff that falls smoothly, and features for
      the heads of several tasks in place of one energy.
    """

    def __init__(
        self,
        elements: int,
        *,
        width: int = 128,
        rounds: int = 3,
        cutoff: float = 10.0,
        bumps: int = 50,
        pool: str = "sum",
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        checks.one_of("pool", pool, ("sum", "mean"))
        options = {"dtype": dtype, "rngs": rngs}
        self.features, self.cutoff, self.bumps, self.pool = width, cutoff, bumps, pool
        self.elements = nnx.Embed(elements, width, **options)
        self.rounds = nnx.List([Round(width, bumps, **options) for _ in range(rounds)])
        self.out = nnx.Linear(width, width, **options)

    def __call__(self, x: Mapping[str, Any]) -> jax.Array:
        """Rows `[B, width]`.

        Args:
          x: "atoms" `[B, A]` int, 0 for none, and "positions" `[B, A, 3]` float, which
            are not looked at where there is no atom.
        """
        atoms, positions = x["atoms"], x["positions"]
        is_atom = atoms > 0
        pairs = is_atom[:, :, None] & is_atom[:, None, :]
        pairs &= ~jnp.eye(atoms.shape[1], dtype=bool)[None]
        far = distances(positions, pairs)
        near = pairs & (far < self.cutoff)
        falls = jnp.where(near, (jnp.cos(jnp.pi * far / self.cutoff) + 1) / 2, 0)
        bumps = radial_bumps(far, self.cutoff, self.bumps)
        h = self.elements(atoms)
        for layer in self.rounds:
            h = h + layer(h, bumps, falls)
        h = soft(self.out(h))
        total = jnp.sum(jnp.where(is_atom[..., None], h, 0), axis=1)
        if self.pool == "sum":
            return total
        count = jnp.maximum(is_atom.sum(axis=1, keepdims=True), 1)
        return total / count.astype(total.dtype)


class Round(nnx.Module):
    """One round of messages between the atoms of each molecule."""

    def __init__(self, width: int, bumps: int, **options: Any):
        self.filters = nnx.List(
            [nnx.Linear(before, width, **options) for before in (bumps, width)]
        )
        self.told = nnx.Linear(width, width, use_bias=False, **options)
        self.heard = nnx.List([nnx.Linear(width, width, **options) for _ in range(2)])

    def __call__(self, h: jax.Array, bumps: jax.Array, falls: jax.Array) -> jax.Array:
        """What is added to `[B, A, width]`, by `[B, A, A, bumps]` and `[B, A, A]`."""
        first, second = self.filters
        filters = second(soft(first(bumps)))
        weights = filters * falls[..., None].astype(filters.dtype)
        messages = jnp.einsum("bijf,bjf->bif", weights, self.told(h))
        first, second = self.heard
        return second(soft(first(messages)))


def distances(positions: jax.Array, pairs: jax.Array) -> jax.Array:
    """`[B, A, A]` where there are pairs, 1 elsewhere; gradient 0 at distance 0."""
    between = positions[:, :, None, :] - positions[:, None, :, :]
    between = jnp.where(pairs[..., None], between, 0)
    square = jnp.sum(between**2, axis=-1)
    apart = square > 0
    root = jnp.sqrt(jnp.where(apart, square, 1))
    return jnp.where(pairs, jnp.where(apart, root, 0), 1)


def radial_bumps(distance: jax.Array, cutoff: float, number: int) -> jax.Array:
    """Gaussians of the distance, `[..., number]`, as wide as they are apart."""
    centres = jnp.linspace(0, cutoff, number, dtype=distance.dtype)
    apart = cutoff / max(number - 1, 1)
    shape = (1,) * distance.ndim + (number,)
    return jnp.exp(-0.5 * ((distance[..., None] - centres.reshape(shape)) / apart) ** 2)


def soft(x: jax.Array) -> jax.Array:
    """A smooth ReLU that is 0 at 0."""
    return nnx.softplus(x) - jnp.log(2.0).astype(x.dtype)
