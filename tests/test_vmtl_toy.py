"""VMTL on toys: not worse than to learn alone, and nearer to the task that is alike.

The weights of the divergences, steps and rates were chosen on seeds 100 to 107. No
dropout, which leaves nothing of two inputs.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mtl_optax.analysis.comparison import paired_t
from mtl_optax.nn import VMTL, same_class_inputs, vmtl_init, vmtl_losses

CLASSES = 3


def examples(rng, angles, of_each, noise):
    """Three classes around a circle, turned by an angle for each task."""
    labels = np.tile(np.repeat(np.arange(CLASSES), of_each), (len(angles), 1))
    turned = 2 * np.pi * labels / CLASSES + np.deg2rad(angles)[:, None]
    x = 1.5 * np.stack([np.cos(turned), np.sin(turned)], axis=-1)
    return (x + noise * rng.normal(size=x.shape)).astype(np.float32), labels


def drawn(seeds, angles, noise):
    """Five examples of each class for training, 200 to test, at each seed."""
    every = [np.random.default_rng(seed) for seed in range(seeds)]
    pairs = [[examples(rng, angles, n, noise) for n in (5, 200)] for rng in every]
    return jax.tree.map(lambda *x: jnp.stack(x), *pairs)


@partial(jax.jit, static_argnames=("prior", "steps", "rate", "tau"))
def trained(train, test, beta, eta, grows, prior="sum", steps=500, **how):
    """Test accuracy `[seeds, T]`, and the learned weights of the classifiers' priors.

    beta is constant, or grows from 0.
    """
    tasks = tuple("abcd"[: train[0].shape[1]])
    options = {"latent_dim": 8, "dropout": 0.0, "prior": prior}
    rate, tau = how.get("rate", 1e-2), how.get("tau", 1.0)

    def network(key):
        return VMTL(2, CLASSES, tasks, **options, rngs=nnx.Rngs(params=key))

    graphdef, _ = nnx.split(network(jax.random.key(0)))
    tx = optax.adam(rate)

    def run(train, test, seed):
        key = jax.random.key(seed)
        batch = {task: (train[0][t], train[1][t]) for t, task in enumerate(tasks)}
        surrogates = None
        if len(tasks) > 1:
            surrogates = {
                task: same_class_inputs(
                    *batch[task], [batch[other] for other in tasks if other != task]
                )
                for task in tasks
            }

        def step(carry, number):
            params, state, opt_state = carry

            def loss(params):
                losses, terms = vmtl_losses(
                    nnx.merge(graphdef, params),
                    state,
                    batch,
                    key=jax.random.fold_in(key, number),
                    beta=beta * jnp.where(grows, number / steps, 1),
                    eta=eta,
                    tau=tau,
                    surrogates=surrogates,
                    num_samples=2,
                )
                return sum(losses.values()), terms.state

            grads, state = jax.grad(loss, has_aux=True)(params)
            updates, opt_state = tx.update(grads, opt_state)
            return (optax.apply_updates(params, updates), state, opt_state), None

        net = network(key)
        params = nnx.state(net)
        carry = params, vmtl_init(net), tx.init(params)
        carry, _ = jax.lax.scan(step, carry, jnp.arange(steps))
        net = nnx.merge(graphdef, carry[0])
        outputs = net(dict(zip(tasks, test[0], strict=True)))
        hits = [
            (outputs[task].argmax(axis=-1) == test[1][t]).mean()
            for t, task in enumerate(tasks)
        ]
        logits = [net.own[task].classifier_prior for task in tasks]
        weights = [jax.nn.softmax(x[...]) for x in logits if x is not None]
        return jnp.stack(hits), weights

    return jax.vmap(run)(train, test, jnp.arange(len(train[0])))


@pytest.mark.slow
def test_rotations_of_a_problem_are_learned_as_well_as_alone():
    """Four rotations of one problem by 0, 15, 30, 45 degrees, 15 examples each.

    So that tasks are alike: after a quarter turn each class would lie where another
    one does in the task before, and one linear encoder has no use for the others'
    classifiers (see the docstring of VMTL). VMTL has the authors' weights, beta grown
    to 6e-3 and eta 1e-7. Single tasks have 1/15, the best for them of five pairs. VMTL
    must be less than 3 points worse, by an interval over 20 seeds; measured:
    79.2 %, -0.9 [-2.0, +0.2].
    """
    train, test = drawn(20, (0, 15, 30, 45), noise=1.0)
    ours, _ = trained(train, test, 6e-3, 1e-7, 1.0)
    each = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[2:]), (train, test))
    single, _ = trained(*each, 1 / 15, 1 / 15, 0.0)
    both = ours, single.reshape(-1, 4)
    found = paired_t(*(np.asarray(x.mean(axis=1)) for x in both))
    assert ours.mean() > 0.75
    assert found.low > -0.03, found


@pytest.mark.parametrize(
    ("prior", "beta", "grows", "how"),
    [
        ("mixture", 1e-2, 0.0, {}),
        # Its weights fall to whichever task is nearer at the start, unless beta and
        # all parameters move slowly.
        ("sum", 2e-2, 1.0, {"rate": 1e-3, "steps": 1500}),
    ],
)
@pytest.mark.slow
def test_the_prior_is_made_of_the_task_that_is_alike(prior, beta, grows, how):
    """A' is A turned by 10 degrees; the labels of B are shuffled."""
    train, test = drawn(5, (0, 10, 0), noise=0.7)
    shuffled = np.array(train[1][:, 2])
    np.random.default_rng(50).permuted(shuffled, axis=1, out=shuffled)
    train = train[0], train[1].at[:, 2].set(shuffled)
    accuracy, (of_a, of_a_too, _) = trained(
        train, test, beta, 1e-7, grows, prior, tau=0.5, **how
    )
    assert accuracy[:, :2].mean() > 0.85
    for weights in (of_a[:, 0], of_a_too[:, 0]):  # that of the other of the two
        assert paired_t(np.asarray(weights), np.full(5, 0.5)).low > 0, weights
