"""Learning to branch: each layer of a task chooses its parent (Guo et al. 2020)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.nn.cross_stitch import stage_count, stitched
from mtl_optax.nn.mixtures import Module, task_names
from mtl_optax.nn.sharing import one_input


def ltb_schedule(epoch: Any, num_epochs: Any) -> dict[str, jax.Array]:
    r"""The keywords of an epoch (from 0): :math:`\tau = (N/20) / \sqrt{n+1}`.

    `warm_up` is True in the first hundredth of the epochs. Both may be traced.

    Example:
      >>> from mtl_optax.nn import ltb_schedule
      >>> {k: v.item() for k, v in ltb_schedule(3, num_epochs=200).items()}
      {'temperature': 5.0, 'warm_up': False}
    """
    epoch, num_epochs = jnp.asarray(epoch), jnp.asarray(num_epochs)
    temperature = num_epochs / 20 / jnp.sqrt(epoch + 1.0)
    return {"temperature": temperature, "warm_up": epoch < num_epochs / 100}


def straight_through(logits: Any, key: Any, temperature: Any) -> jax.Array:
    """A Gumbel-softmax draw along the last axis: one-hot, with the gradient of softmax.

    Args:
      logits: `[..., T]`.
      key: a key of `jax.random`.
      temperature: of the softmax whose gradient is taken; it does not change the draw.
    """
    soft = nnx.softmax((logits + jax.random.gumbel(key, logits.shape)) / temperature)
    return _one_hot(soft) + (soft - jax.lax.stop_gradient(soft))


class LTB(nnx.Module):
    r"""A copy of each stage for each task, and a learned choice of the copy before it.

    .. math:: x_t^1 = f_t^1(x) \qquad
      x_t^s = f_t^s \Big( \sum_j a_{stj} \, x_j^{s-1} \Big) \qquad y_t = D_t(x_t^S)

    with one-hot rows :math:`a_{st}`: drawn by Gumbel-softmax from the logits
    :math:`\alpha_{st}` in training, the argmax of the logits without a key. What no
    task chooses may be pruned. Tasks are numbered by their sorted names.

    Args:
      stages: task -> its S stages :math:`f_t^s`, modules whose outputs have one shape
        for all tasks.
      decoders: task -> :math:`D_t`, a callable module from the last stage.

    Shared: all stages and logits. Auxiliary terms: none; the paper's cost of a tree is
    left out, as in LibMTL.

    Raises:
      ValueError: if the tasks of both dictionaries or the numbers of stages differ.

    Cost: T encoders in training; the branches in use afterwards.

    When not to use it: in short trainings, whose choice is mostly chance. At the start
    all logits are equal: without a key all tasks then follow the first copy. With
    inputs that differ by task: all first stages read one input.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import LTB, ltb_schedule
      >>> rngs = nnx.Rngs(0)
      >>> linear = lambda *size: nnx.Linear(*size, rngs=rngs)
      >>> net = LTB(
      ...     {task: [linear(3, 4), linear(4, 4)] for task in ("a", "b")},
      ...     {"a": linear(4, 1), "b": linear(4, 2)},
      ... )
      >>> x = jnp.ones((8, 3))
      >>> train = net(x, key=jax.random.key(0), **ltb_schedule(2, num_epochs=100))
      >>> {task: y.shape for task, y in net(x).items()}
      {'a': (8, 1), 'b': (8, 2)}

    References:
      Guo et al., `Learning to Branch for Multi-Task Learning
      <https://arxiv.org/abs/2006.01895>`_, ICML 2020. Where we differ from LibMTL: it
      keeps drawing in evaluation, and holds logits that it never uses; key, temperature
      and warm-up are arguments here, not state. Its schedule is `ltb_schedule`.
    """

    def __init__(
        self, stages: Mapping[str, Sequence[Module]], decoders: Mapping[str, Module]
    ):
        num_tasks = len(task_names("LTB", stages=stages, decoders=decoders))
        between = stage_count("LTB", stages) - 1
        self.logits = nnx.Param(jnp.ones((between, num_tasks, num_tasks)))
        self.stages = nnx.Dict({t: nnx.List(list(s)) for t, s in stages.items()})
        self.own = nnx.Dict(dict(decoders))

    def __call__(
        self, x: Any, *, key: Any = None, temperature: Any = 1.0, warm_up: Any = False
    ) -> dict[str, jax.Array]:
        """Outputs of each task for inputs `[B, ...]`.

        Args:
          x: inputs.
          key: of this step's draws; None takes the argmax, and ignores the rest.
          temperature: of the Gumbel-softmax; may be traced.
          warm_up: whether a stage reads the sum of all copies; may be traced.
        """
        one_input("LTB", x, self.own)
        chosen = self.choices(key=key, temperature=temperature, warm_up=warm_up)
        values = stitched(x, self.stages, chosen)
        return {task: self.own[task](value) for task, value in values.items()}

    def choices(
        self, *, key: Any = None, temperature: Any = 1.0, warm_up: Any = False
    ) -> jax.Array:
        """The a `[S-1, T, T]` of a call with these arguments: row t is task t's."""
        logits = self.logits[...]
        if key is None:
            return _one_hot(logits)
        drawn = straight_through(logits, key, temperature)
        return jnp.where(warm_up, jnp.ones_like(drawn), drawn)


def _one_hot(scores: Any) -> jax.Array:
    """1 at the largest of the last axis, the first of equals; no gradient."""
    return jax.nn.one_hot(jnp.argmax(scores, -1), scores.shape[-1])
