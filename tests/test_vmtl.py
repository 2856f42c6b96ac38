"""VMTL: what its losses depend on, first step, amortised classifiers."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_optax.nn import (
    VMTL,
    Surrogates,
    owner,
    same_class_inputs,
    vmtl_init,
    vmtl_losses,
)
from mtl_optax.nn.bayes_linear import Gaussian, gaussian_kl

TASKS = ("a", "b", "c")
rng = np.random.default_rng(0)
BATCH = {
    task: (
        jnp.asarray(rng.normal(size=(6, 4)), jnp.float32),
        jnp.array([0, 1, 2, 0, 1, 2]),
    )
    for task in TASKS
}
SURROGATES = {
    task: same_class_inputs(
        *BATCH[task], [BATCH[other] for other in TASKS if other != task]
    )
    for task in TASKS
}
AMORTISED = pytest.mark.parametrize("amortised", [False, True])


@cache
def network(amortised=False, prior="sum"):
    options = {"latent_dim": 5, "amortised": amortised, "prior": prior, "dropout": 0.2}
    net = VMTL(4, 3, TASKS, **options, rngs=nnx.Rngs(0))
    return nnx.split(net)


@cache
def losses_and_gradients(amortised=False, prior="sum"):
    """Compiled: of the first task's loss, and the state; at any beta and eta."""
    graphdef, _ = network(amortised, prior)

    def loss(params, state, beta, eta):
        losses, terms = vmtl_losses(
            nnx.merge(graphdef, params),
            state,
            BATCH,
            key=jax.random.key(1),
            beta=beta,
            eta=eta,
            surrogates=SURROGATES,
            num_samples=2,
        )
        return losses["a"], (losses, terms)

    return jax.jit(jax.grad(loss, has_aux=True))


@cache
def second_step(amortised=False, beta=0.1, eta=0.1):
    graphdef, params = network(amortised)
    first = losses_and_gradients(amortised)
    _, (_, terms) = first(params, vmtl_init(nnx.merge(graphdef, params)), beta, eta)
    return first(params, terms.state, beta, eta), terms


@AMORTISED
@pytest.mark.slow
def test_losses_reach_no_other_task_and_its_own_priors(amortised):
    (grads, (losses, terms)), _ = second_step(amortised)
    assert int(terms.state.step) == 2
    for task in TASKS:
        whole = (
            terms.cross_entropy[task]
            + 0.1 * terms.kl_classifier[task]
            + 0.1 * terms.kl_representation[task]
        )
        np.testing.assert_allclose(losses[task], whole, rtol=1e-5)
    tasks = jax.tree.leaves(owner(TASKS)(grads), is_leaf=lambda x: x is None)
    for task, g in zip(tasks, jax.tree.leaves(grads), strict=True):
        assert np.any(g != 0) == (task in (None, 0)), task


@pytest.mark.slow
def test_the_first_step_has_standard_priors():
    (_, _), first = second_step()
    graphdef, params = network()
    net = nnx.merge(graphdef, params)
    for task, q in net.classifiers(None).items():
        standard = Gaussian(jnp.zeros_like(q.mean), jnp.ones_like(q.var))
        wanted = gaussian_kl(q, standard).sum()
        np.testing.assert_allclose(first.kl_classifier[task], wanted, rtol=1e-4)
    (_, (_, second)), _ = second_step()
    # Half and half at first, of others with the same small scales: another prior.
    assert abs(second.kl_classifier["a"] / first.kl_classifier["a"] - 1) > 0.1


@pytest.mark.parametrize("prior", ["sum", "mixture"])
@pytest.mark.slow
def test_divergences_are_those_of_numpy(prior):
    """At a temperature that makes weights equal, of one task from the two others."""
    net = nnx.merge(*network(prior=prior))
    net.dropout = 0.0
    state = vmtl_init(net)._replace(step=jnp.int32(1))
    # Other moments before than now, and larger variances: 1e-6 is not seen.
    before = {
        task: Gaussian(q.mean + t, q.var + 0.5 * t + 0.1)
        for t, (task, q) in enumerate(state.classifiers.items())
    }
    options = {"tau": 1e9, "surrogates": SURROGATES, "num_samples": 1}
    losses = jax.jit(partial(vmtl_losses, beta=0.1, eta=0.1, **options))
    key = jax.random.key(0)
    _, terms = losses(net, state._replace(classifiers=before), BATCH, key=key)

    def mean_divergence(q, others):
        """Over the others, or from what half of each makes."""
        (m, v), others = (
            (np.float64(x) for x in q),
            [[np.float64(x) for x in p] for p in others],
        )
        if prior == "sum":
            (m1, v1), (m2, v2) = others
            others = [((m1 + m2) / 2, (v1 + v2) / 4)]
        each = [
            (np.log(w / v) / 2 + (v + (m - n) ** 2) / (2 * w) - 0.5).sum(axis=-1)
            for n, w in others
        ]
        return np.mean(each, axis=0)

    q = net.classifiers(None)["b"]
    wanted = mean_divergence(q, [before["a"], before["c"]]).sum()
    np.testing.assert_allclose(terms.kl_classifier["b"], wanted, rtol=1e-3)
    x = BATCH["b"][0]
    inputs = SURROGATES["b"].inputs  # those of a, then those of c
    wanted = mean_divergence(net.encode(x), [net.encode(y) for y in inputs]).mean()
    np.testing.assert_allclose(terms.kl_representation["b"], wanted, rtol=1e-3)


def test_weights_of_the_others_have_their_order():
    """Also after nnx has sorted what tasks own: all weight is on the first other."""
    tasks = ("z", "y", "x")
    net = VMTL(4, 3, tasks, latent_dim=5, rngs=nnx.Rngs(0))
    net = nnx.merge(*nnx.split(net))
    net.own["y"].classifier_prior[...] = jnp.array([40.0, -40.0])
    state = vmtl_init(net)
    before = {
        task: Gaussian(q.mean + t, q.var + 0.1)
        for t, (task, q) in enumerate(state.classifiers.items())
    }
    state = state._replace(step=jnp.int32(1), classifiers=before)
    batch = dict.fromkeys(tasks, BATCH["a"])
    options = {"key": jax.random.key(0), "beta": 0.1, "eta": 0.1}
    losses = jax.jit(partial(vmtl_losses, **options))
    kl = losses(net, state, batch)[1].kl_classifier["y"]
    wanted = gaussian_kl(net.classifiers(None)["y"], before["z"]).sum()
    np.testing.assert_allclose(kl, wanted, rtol=1e-5)


@pytest.mark.slow
def test_without_divergences_the_priors_get_no_gradient():
    (grads, _), _ = second_step(beta=0.0, eta=0.0)
    for task in TASKS:
        for name in ("classifier_prior", "representation_prior"):
            np.testing.assert_array_equal(grads["own"][task][name][...], 0)


@pytest.mark.slow
def test_mixture_is_another_bound():
    params, state = network()[1], second_step()[1].state
    _, (_, mixture) = losses_and_gradients(prior="mixture")(params, state, 0.1, 0.1)
    _, (_, of_sum) = losses_and_gradients()(params, state, 0.1, 0.1)
    np.testing.assert_allclose(mixture.cross_entropy["a"], of_sum.cross_entropy["a"])
    assert mixture.kl_classifier["a"] != of_sum.kl_classifier["a"]


@pytest.mark.slow
def test_amortised_classifiers_are_made_of_running_class_means():
    (_, (_, terms)), _ = second_step(amortised=True)
    x, labels = BATCH["b"]
    for c in range(3):
        wanted = x[labels == c].mean(axis=0)  # the same batch twice
        np.testing.assert_allclose(terms.state.centers["b"][c], wanted, rtol=1e-5)
    np.testing.assert_array_equal(terms.state.counts["b"], 2)
    assert terms.state.classifiers["b"].mean.shape == (3, 6)
    net = nnx.merge(*network(amortised=True))
    with pytest.raises(ValueError, match="pass state="):
        net(x)

    @partial(jax.jit, static_argnums=1)
    def predict(state, samples):
        by_means = net({"b": x}, state)["b"]
        return by_means, net.predict(
            {"b": x}, state, key=jax.random.key(0), num_samples=samples
        )["b"]

    by_means, log_p = predict(terms.state, 20)
    assert by_means.shape == log_p.shape == (6, 3)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, rtol=1e-5)


def test_errors_name_the_tasks():
    net = nnx.merge(*network())
    few = {"a": BATCH["a"]}
    options = {"key": jax.random.key(0), "beta": 0.1, "eta": 0.1}
    with pytest.raises(ValueError, match=r"batch for each of.*got \('a',\)"):
        vmtl_losses(net, vmtl_init(net), few, **options)
    with pytest.raises(ValueError, match="surrogates for each of"):
        vmtl_losses(
            net,
            vmtl_init(net),
            BATCH,
            surrogates={"a": Surrogates(*SURROGATES["a"])},
            **options,
        )
    with pytest.raises(ValueError, match="tasks must differ"):
        VMTL(4, 3, ("a", "a"), rngs=nnx.Rngs(0))
