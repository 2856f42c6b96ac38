"""Variational multi-task learning: a task's prior is made of the other posteriors."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.core.arguments import checks
from mtl_optax.nn.bayes_linear import (
    BayesLinear,
    Gaussian,
    GaussianParam,
    linear_moments,
    sample,
)

Array = jax.Array


class VMTL(nnx.Module):
    r"""A Gaussian representation that all tasks share, and a Gaussian classifier each.

    .. math::
      z \sim q(z|x), \quad w_t \sim q_t(w), \quad \mathrm{logits} = w_t z

    :func:`vmtl_losses` trains it. The prior of each task's classifier, and of the
    representation of its examples, is a combination of what the other tasks have, with
    weights that the task learns.

    Args:
      in_dim: size of the inputs, features of a fixed network in the paper.
      num_classes: C, the same classes for all tasks.
      tasks: names of the T tasks. Whatever is of the T-1 others has their order.
      latent_dim: d, size of z.
      amortised: whether a network that all tasks share makes the classifiers of the
        mean input of each class (VMTL-AC), with a bias; otherwise they are free
        parameters, without. The encoder has two hidden layers then, and none otherwise.
      prior: "sum" or "mixture", see `prior_kl`.
      dropout: rate on the inputs in training.
      dtype: of the computation, as in Flax. Divergences and cross entropy are in
        float32 at least.
      rngs: `params` for the initial values.

    Raises:
      ValueError: for an unknown prior or equal names; when an amortised net is called
        without state.

    Shared: encoder, and generators of classifiers. Each task owns the T-1 logits of
    either prior, if T > 2, and, if not amortised, its classifier.

    Auxiliary terms: the divergences from the priors, see :func:`vmtl_losses`.

    Cost: a prediction from the means costs that of a plain network. Training runs the
    encoder T times on the surrogates of each example.

    Guarantee: none, and no bound on the evidence: the priors are made of posteriors.

    When not to use it: where data are plenty; where tasks have other classes or little
    in common. Keep both weights small, eta close to 0, and the learning rate low, as
    the authors do. Nothing holds the scale of priors that are made of posteriors. With
    "sum" a prior has the variance :math:`\sum_i a_i^2 v_i`, less than any common v, so
    all variances fall to 0 and differences of means count ever more; with "mixture"
    they fall more slowly. Divergences of the representation are least where the encoder
    ignores its input. Measured on four tasks, one problem in the plane turned by 0, 15,
    30, 45 degrees, with 15 examples each, in % of test examples: 33, which is chance,
    with beta = eta = 1/15; 80 with eta 1e-7 and beta from 1e-3 to 1/15; single tasks,
    whose priors are standard, 78 to 81 with such weights. So there it does not
    help, and does no harm.
    Turned by quarters it does: 33 to 54 with eta 1e-7 and beta from 1/15 to 1e-3 (Adam
    1e-2); it takes beta 1e-4 and Adam 1e-3, or the amortised net with the authors'
    weights, to reach 79 or 80, where single tasks have 77 to 80.

    With Adam the weights of the priors move at the learning rate, however small beta
    is. "sum" then rewards weight on one task, whichever is nearest at the start: of two
    others it chose the one that is alike in 3 of 6 runs at 1e-2, in all at 1e-3 with
    beta grown from 0; "mixture" in all at 1e-2.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import VMTL
      >>> net = VMTL(4, 3, ("art", "photo"), latent_dim=5, rngs=nnx.Rngs(0))
      >>> predict = nnx.jit(lambda net, x: net(x))
      >>> {task: y.shape for task, y in predict(net, jnp.ones((2, 4))).items()}
      {'art': (2, 3), 'photo': (2, 3)}

    References:
      Shen et al., `Variational Multi-Task Learning with Gumbel-Softmax Priors
      <https://arxiv.org/abs/2111.05323>`_, 2021, and the authors' code,
      autumn9999/VMTL. There the generator of the bias has one hidden unit; here d.
      Logits are drawn by local reparameterisation, which has the law of weights drawn
      for each row. INFERRED: the bias is one more column of the classifier, with its
      prior.
    """

    def __init__(
        self,
        in_dim: int,
        num_classes: int,
        tasks: Sequence[str],
        *,
        latent_dim: int = 512,
        amortised: bool = False,
        prior: str = "sum",
        dropout: float = 0.7,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        checks.one_of("prior", prior, ("sum", "mixture"))
        if len(set(tasks)) != len(tasks):
            raise ValueError(f"VMTL: tasks must differ; got {tuple(tasks)}.")
        self.num_classes, self.in_dim = num_classes, in_dim
        self.tasks = tuple(tasks)  # nnx sorts `own`; the logits of priors have an order
        self.prior, self.dropout, self.amortised = prior, dropout, amortised

        options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}

        def deep(d_out: int) -> nnx.Sequential:
            return nnx.Sequential(
                nnx.Linear(in_dim, latent_dim, **options),
                nnx.elu,
                nnx.Linear(latent_dim, latent_dim, **options),
                nnx.elu,
                BayesLinear(latent_dim, d_out, **options),
            )

        plain = BayesLinear(in_dim, latent_dim, **options) if not amortised else None
        self.encoder = plain or deep(latent_dim)
        if amortised:
            self.generators = nnx.List([deep(latent_dim), deep(1)])
        shape = None if amortised else (num_classes, latent_dim)
        others = len(tasks) - 1
        self.own = nnx.Dict({t: _Own(others, shape, rngs=rngs) for t in tasks})

    def __call__(self, x: Any, state: Any = None) -> dict[str, Array]:
        """Logits of each task `[B, C]`, from the means of both posteriors.

        Args:
          x: `[B, in_dim]`, the same for all tasks, or a dict from tasks to those of
            each.
          state: the `VMTLState`, if amortised.
        """
        classifiers = self.classifiers(state and state.centers)
        return {
            task: logits(self.encode(of_task).mean, classifiers[task]).mean
            for task, of_task in self._of_tasks(x).items()
        }

    def predict(
        self, x: Any, state: Any = None, *, key: Any, num_samples: int = 10
    ) -> dict[str, Array]:
        """Log-probabilities `[B, C]`: the mean of the probabilities over samples."""
        classifiers = self.classifiers(state and state.centers)
        outputs = {}
        for number, (task, of_task) in enumerate(self._of_tasks(x).items()):
            drawn = sample_logits(
                self.encode(of_task),
                classifiers[task],
                jax.random.fold_in(key, number),
                num_samples,
            )
            log_p = jax.nn.log_softmax(drawn)
            outputs[task] = jax.nn.logsumexp(log_p, axis=0) - jnp.log(num_samples)
        return outputs

    def encode(self, x: Array, key: Any = None) -> Gaussian:
        """Moments `[..., d]` of z; with dropout where there is a key."""
        if key is not None and self.dropout > 0:
            kept = jax.random.bernoulli(key, 1 - self.dropout, x.shape)
            x = jnp.where(kept, x / (1 - self.dropout), 0)
        return self.encoder(x)

    def classifiers(self, centers: Mapping[str, Array] | None) -> dict[str, Gaussian]:
        """Moments of each task's classifier, `[C, d]`; `[C, d+1]` if amortised."""
        if not self.amortised:
            return {task: self.own[task].classifier() for task in self.tasks}
        if centers is None:
            raise ValueError(
                "VMTL: amortised classifiers are made of the mean inputs of each "
                "class; pass state=, which vmtl_losses returns."
            )
        moments = {}
        for task in self.tasks:
            parts = [generate(centers[task]) for generate in self.generators]
            moments[task] = jax.tree.map(
                lambda *leaves: jnp.concatenate(leaves, axis=-1), *parts
            )
        return moments

    def _of_tasks(self, x: Any) -> dict[str, Array]:
        return dict(x) if isinstance(x, Mapping) else dict.fromkeys(self.tasks, x)


class _Own(nnx.Module):
    """What a task owns: logits of its priors and, if not amortised, a classifier."""

    def __init__(
        self, others: int, shape: tuple[int, int] | None, *, rngs: nnx.Rngs
    ) -> None:
        choice = others > 1  # the weight of a single other is one
        self.classifier_prior = nnx.Param(jnp.zeros(others)) if choice else None
        self.representation_prior = nnx.Param(jnp.zeros(others)) if choice else None
        if shape:
            self.classifier = GaussianParam(shape, rngs=rngs)


def logits(z: Array, classifier: Gaussian) -> Gaussian:
    """Moments of the logits `[..., C]` given z `[..., d]`."""
    mean, var = classifier
    d = z.shape[-1]
    weights = Gaussian(mean[:, :d].T, var[:, :d].T)
    bias = Gaussian(mean[:, d], var[:, d]) if mean.shape[1] > d else None
    return linear_moments(z, weights, bias)


def sample_logits(z: Gaussian, classifier: Gaussian, key: Any, number: int) -> Array:
    """Draws `[number, B, C]`, each with its own z and its own weights."""
    of_z, of_weights = jax.random.split(key)
    drawn = logits(sample(z, of_z, number), classifier)
    return sample(drawn, of_weights, 1)[0]
