"""The variational objective of VMTL, one a task."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.nn.bayes_linear import Gaussian, gaussian_kl
from mtl_optax.nn.gumbel_prior import gumbel_weights, prior_kl
from mtl_optax.nn.surrogates import Surrogates
from mtl_optax.nn.vmtl import VMTL, sample_logits

Array = jax.Array


class VMTLState(NamedTuple):
    """What the next step needs of this one."""

    step: Array  # [] int32
    classifiers: dict[str, Gaussian]  # last posteriors, [C, d] a task
    # Empty unless amortised:
    centers: dict[str, Array]  # [C, in_dim] a task, mean inputs of the classes
    counts: dict[str, Array]  # [C] a task, batches that had the class


class VMTLTerms(NamedTuple):
    """The parts of the losses, unweighted, and the state for the next step."""

    state: VMTLState
    cross_entropy: dict[str, Array]
    kl_classifier: dict[str, Array]  # summed over classes
    kl_representation: dict[str, Array]  # mean over examples


def vmtl_init(net: VMTL) -> VMTLState:
    """The state before the first step."""
    tasks = net.tasks if net.amortised else ()
    centers = {task: jnp.zeros((net.num_classes, net.in_dim)) for task in tasks}
    return VMTLState(
        step=jnp.int32(0),
        classifiers=jax.lax.stop_gradient(net.classifiers(centers)),
        centers=centers,
        counts={task: jnp.zeros(net.num_classes) for task in tasks},
    )


def vmtl_losses(
    net: VMTL,
    state: VMTLState,
    batch: Mapping[str, tuple[Array, Array]],
    *,
    key: Any,
    beta: Any,
    eta: Any,
    tau: Any = 1.0,
    surrogates: Mapping[str, Surrogates] | None = None,
    num_samples: int = 10,
) -> tuple[dict[str, Array], VMTLTerms]:
    r"""The negative evidence lower bound of each task, up to the two weights.

    .. math::
      L_t = \mathrm{CE}_t + \beta \sum_c KL(q_t(w_c) \| p_t(w_c))
      + \eta \, \mathrm{mean}_n KL(q(z|x_n) \| p_t(z|x_n))

    where the prior of each is made of the other tasks' posteriors, see `prior_kl`, with
    weights drawn by `gumbel_weights` from logits that the task owns. Other tasks'
    posteriors are constants there: those of classifiers from the step before, those of
    representations from the surrogates. In the first step all priors are
    :math:`N(0, I)`; so they are for a single task, for the representation without
    `surrogates`, and for examples whose class another task lacks, in its place.

    Args:
      net: the network.
      state: `vmtl_init(net)`, then `terms.state` of the step before.
      batch: task -> inputs `[B, in_dim]` and labels `[B]`, for each task.
      key: of jax.random.
      beta: weight of the classifier's divergence. :math:`1/N_t`, with eta 1, is the
        bound an example, for :math:`N_t` examples of the task, if priors are standard;
        see :class:`VMTL` for what it does if not. In the authors' code it grows from 0
        by steps of equal size, to 6e-3 in the end.
      eta: weight of the representation's divergence, 1e-7 in the authors' code.
      tau: temperature of the priors' weights.
      surrogates: task -> `same_class_inputs` of its batch.
      num_samples: draws of z and of the classifier for each example.

    Returns:
      A dict task -> loss, and `VMTLTerms`.

    Raises:
      ValueError: if the batch or the surrogates have other tasks than the net.

    Cost: T passes of the encoder over each task's batch, with surrogates; the moments
    of all classifiers as state.

    When not to use it: see :class:`VMTL`.

    Example:
      >>> from functools import partial
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import VMTL, vmtl_init, vmtl_losses
      >>> net = VMTL(4, 3, ("art", "photo"), latent_dim=5, rngs=nnx.Rngs(0))
      >>> examples = jnp.ones((2, 4)), jnp.array([0, 2])
      >>> losses, terms = nnx.jit(partial(vmtl_losses, beta=0.1, eta=0.1))(
      ...     net,
      ...     vmtl_init(net),
      ...     {"art": examples, "photo": examples},
      ...     key=jax.random.key(0),
      ... )
      >>> sorted(losses), int(terms.state.step)
      (['art', 'photo'], 1)

    References:
      See :class:`VMTL`. The authors' code visits tasks one after another, with an
      update for each; here all take their step from the same state. To do as they do,
      go through the tasks, take a step along the gradient of `losses[task]` alone, and
      take over of `terms.state` only what is that task's; add 1 to `step` after each
      round. INFERRED:
      "mixture", the weights that give the bound, no dropout on surrogates, centres
      updated before use, and for each class apart.
    """
    tasks = net.tasks
    if set(batch) != set(tasks):
        raise ValueError(
            f"vmtl_losses needs a batch for each of {tasks}; got {tuple(batch)}."
        )
    if surrogates is not None and set(surrogates) != set(tasks):
        raise ValueError(
            f"vmtl_losses needs surrogates for each of {tasks}; got "
            f"{tuple(surrogates)}. Without any, pass None."
        )
    updated = {
        task: _update_centers(state.centers[task], state.counts[task], *batch[task])
        for task in state.centers
    }
    centers = {task: new for task, (new, _) in updated.items()}
    counts = {task: new for task, (_, new) in updated.items()}
    posteriors = net.classifiers(centers)

    def divergence(q: Gaussian, others: Any, logits: Any, key: Any) -> Array:
        """Of a posterior from the prior that the others make of it."""
        standard = gaussian_kl(q, Gaussian(jnp.zeros_like(q[0]), jnp.ones_like(q[1])))
        if others is None:
            return standard
        single = logits is None  # another task, and no choice
        weights = jnp.ones(1) if single else gumbel_weights(logits[...], tau, key)
        informed = prior_kl(q, others, weights, net.prior)
        return jnp.where(state.step == 0, standard, informed)

    losses, cross_entropy, of_w, of_z = {}, {}, {}, {}
    for number, task in enumerate(tasks):
        keys = jax.random.split(jax.random.fold_in(key, number), 4)
        (x, labels), own, w = batch[task], net.own[task], posteriors[task]
        z = net.encode(x, keys[0])
        drawn = sample_logits(z, w, keys[1], num_samples)
        wide = jnp.promote_types(drawn.dtype, jnp.float32)
        log_p = jax.nn.log_softmax(drawn.astype(wide))
        target = jax.nn.one_hot(labels, net.num_classes, dtype=log_p.dtype)
        cross_entropy[task] = -(log_p * target[None]).sum(axis=-1).mean()
        before = [state.classifiers[other] for other in tasks if other != task]
        other_w = jax.tree.map(lambda *m: jnp.stack(m), *before) if before else None
        other_z = _others_of(net, surrogates[task]) if surrogates and before else None
        of_w[task] = divergence(w, other_w, own.classifier_prior, keys[2]).sum()
        of_z[task] = divergence(z, other_z, own.representation_prior, keys[3]).mean()
        losses[task] = cross_entropy[task] + beta * of_w[task] + eta * of_z[task]
    now = VMTLState(state.step + 1, jax.lax.stop_gradient(posteriors), centers, counts)
    return losses, VMTLTerms(now, cross_entropy, of_w, of_z)


def _others_of(net: VMTL, surrogates: Surrogates) -> Gaussian:
    """Posteriors of the representation in the other tasks; standard where absent."""
    mean, var = net.encode(surrogates.inputs)
    present = surrogates.present[..., None]
    return Gaussian(jnp.where(present, mean, 0), jnp.where(present, var, 1))


def _update_centers(
    centers: Array, counts: Array, x: Array, labels: Array
) -> tuple[Array, Array]:
    """Running means over steps of each class's mean, over the steps that have it."""
    members = jax.nn.one_hot(labels, len(counts), dtype=x.dtype)
    size = members.sum(axis=0)
    mean = members.T @ x / jnp.maximum(size, 1)[:, None]
    n = counts[:, None]
    present = size > 0
    return (
        jnp.where(present[:, None], (n * centers + mean) / (n + 1), centers),
        counts + present,
    )
