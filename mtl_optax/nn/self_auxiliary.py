"""Small towers beside the tasks' own, as a regulariser of what they share."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from mtl_optax.core.arguments import checks

SUFFIX = "_auxiliary"  # of the names that auxiliaries have as tasks


class SelfAuxiliary(nnx.Module):
    r"""A second, smaller tower for each task, which learns the same labels.

    .. math::
      L_t = \ell_t(D_t(h_t)) + \gamma_t \, \ell_t(D^a_t(h_t))

    where :math:`h_t` is the representation that the task's tower :math:`D_t` reads. A
    weak reader asks more of the shared part than a strong one does. At inference the
    small towers go: a call never runs them, `strip_auxiliaries` drops their leaves.

    Args:
      base: a module with the methods `representations(x)`, a dict task ->
        :math:`h_t`, and `decode(representations)`, a dict task -> output; what belongs
        to task t is `own[t]`. :class:`HardSharing` is one.
      aux_tower: task -> :math:`D^a_t`, a function of the task's name that makes the
        module from :math:`h_t` to outputs like the task's.
      gamma: :math:`\gamma`, a number, or a dict from tasks to numbers.
      mode: "inside": terms bear the name of their task, and belong into its loss.
        "as_tasks": they bear the name with `_auxiliary` behind, and become losses
        beside those of the tasks, 2T in all.
      allow_big: whether a tower may have as many parameters as what the task owns in
        `base`.

    Raises:
      ValueError: for an unknown mode; for an auxiliary tower that is not smaller than
        the task's own, unless `allow_big`.

    Shared: what `base` shares. Auxiliary terms: :math:`\gamma_t \ell_t(D^a_t(h_t))`.
    They come apart from the tasks' losses, so that a weighting that looks at losses can
    be given those of the main towers alone.

    Cost: in training, the small towers. At inference, none.

    When not to use it: where towers are as small as can be already, or tasks own parts
    of the encoder, as in PLE, so that there is no one representation that towers read.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import HardSharing, SelfAuxiliary
      >>> rngs = nnx.Rngs(0)
      >>> tower = lambda: nnx.Sequential(
      ...     nnx.Linear(4, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 1, rngs=rngs)
      ... )
      >>> base = HardSharing(nnx.Linear(3, 4, rngs=rngs), {"a": tower(), "b": tower()})
      >>> net = SelfAuxiliary(base, lambda task: nnx.Linear(4, 1, rngs=rngs), gamma=0.3)
      >>> losses_of = lambda ys: {task: jnp.mean(y**2) for task, y in ys.items()}
      >>> outputs, terms = net.with_auxiliary(jnp.ones((5, 3)), losses_of)
      >>> main = losses_of(outputs)
      >>> losses = {task: main[task] + terms[task] for task in main}

    References:
      Wang et al., `Small Towers Make Big Differences
      <https://arxiv.org/abs/2008.05808>`_, 2020, read in others' accounts; no code of
      the authors is known. INFERRED: gamma's default, and both modes.
    """

    def __init__(
        self,
        base: Any,
        aux_tower: Callable[[str], Any],
        gamma: Any = 1.0,
        mode: str = "inside",
        *,
        allow_big: bool = False,
    ):
        checks.one_of("mode", mode, ("inside", "as_tasks"))
        self.base = base
        self.own = nnx.Dict({task: aux_tower(task) for task in base.own})
        self.gamma = dict(gamma) if isinstance(gamma, Mapping) else gamma
        self.mode = mode
        for task, tower in self.own.items():
            small, main = _size(tower), _size(base.own[task])
            if small >= main and not allow_big:
                raise ValueError(
                    f"SelfAuxiliary: the auxiliary tower of task {task!r} has {small} "
                    f"parameters, its own tower {main}. Make it smaller: a weak reader "
                    "is the point. Or pass allow_big=True."
                )

    def __call__(self, x: Any) -> dict[str, jax.Array]:
        """Outputs of the main towers; the auxiliary ones do not run."""
        return self.base(x)

    def with_auxiliary(
        self, x: Any, losses_of: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Outputs of the main towers, and the auxiliary terms, gamma times their loss.

        Args:
          x: as in a call.
          losses_of: from a dict task -> output to a dict task -> loss.

        Returns:
          Two dicts. With "inside" add each term to the loss of its task; with
          "as_tasks" the losses are `{**losses_of(outputs), **terms}`.
        """
        representations = self.base.representations(x)
        small = {task: self.own[task](h) for task, h in representations.items()}
        behind = SUFFIX if self.mode == "as_tasks" else ""
        terms = {
            task + behind: self._gamma(task) * loss
            for task, loss in losses_of(small).items()
        }
        return self.base.decode(representations), terms

    def _gamma(self, task: str) -> Any:
        return self.gamma[task] if isinstance(self.gamma, dict) else self.gamma


def strip_auxiliaries(params: Any) -> Any:
    """The parameters of the base alone, for export.

    Args:
      params: those of a :class:`SelfAuxiliary`, an NNX state or a dict.

    Returns:
      Those of its `base`, for `nnx.update(base, ...)`.

    Raises:
      ValueError: for other parameters.

    Example:
      >>> from mtl_optax.nn import strip_auxiliaries
      >>> strip_auxiliaries({"base": {"own": {"a": 1.0}}, "own": {"a": 0.0}})
      {'own': {'a': 1.0}}
    """
    if set(params) != {"base", "own"}:
        raise ValueError(
            "strip_auxiliaries needs the parameters of a SelfAuxiliary, with the parts "
            f"'base' and 'own'; got {sorted(map(str, params))}. Where it is a part of "
            "your network, pass that part's."
        )
    return params["base"]


def _size(module: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
