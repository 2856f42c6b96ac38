"""EMA-Net on one scale and on several: what is whose, and that it learns."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from toy_losses import module_losses

import mtl_optax as mtl
from mtl_optax.nn import ConvBackbone, EMANet, MultiScaleEMANet, owner, shared
from mtl_optax.nn.feature_propagation import FeaturePropagation

TASKS = ("b", "a")
OUTPUTS = {"b": 2, "a": 1}


def filled(build):
    """A network with parameters from NumPy: XLA compiles an initialiser a shape."""
    graphdef, state = nnx.split(nnx.eval_shape(build))
    random = np.random.default_rng(0)

    def fill(path, leaf):
        noise = random.normal(size=leaf.shape)
        if leaf.ndim > 1:
            noise /= np.sqrt(np.prod(leaf.shape[:-1]))
        elif "var" in str(path) or "scale" in str(path):
            noise = np.ones(leaf.shape)
        return jnp.asarray(noise, leaf.dtype)

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(fill, state))


def ema_net(grid=(8, 8)):
    rngs = nnx.Rngs(0)
    backbone = nnx.Conv(3, 6, (3, 3), rngs=rngs)
    return EMANet(backbone, OUTPUTS, 6, grid, trunk=8, features=8, rngs=rngs)


def multi_scale(**options):
    rngs = nnx.Rngs(0)
    backbone = ConvBackbone((4, 6), rngs=rngs)
    return MultiScaleEMANet(
        backbone, OUTPUTS, (4, 6), (4, 4), features=4, rngs=rngs, **options
    )


IMAGES = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))


def losses_fn_of(net, images):
    """Two dense tasks: signs of two colours' sum and difference, and a mean."""
    red, green, blue = (images[..., c : c + 1] for c in range(3))
    targets = {
        "b": jnp.concatenate([jnp.sign(red + green), jnp.sign(red - green)], axis=-1),
        "a": (red + green + blue) / 3,
    }

    def losses_of(net):
        outputs, initial = net.with_initial(images)
        error = {
            task: [jnp.mean((y - targets[task]) ** 2) for y in [final, *initial[task]]]
            for task, final in outputs.items()
        }
        return {t: e[0] + sum(e[1:]) / len(e[1:]) for t, e in error.items()}

    losses_fn, params, rest = module_losses(net, losses_of)
    return lambda params: losses_fn(params, rest)[0], params


def assert_coupled_by_what_is_shared_alone(grads, task, parts):
    """Gradients of a task: exact zeros on what others own; their trunks serve it."""
    owners, found = owner(TASKS)(grads), set()
    leaves = jax.tree_util.tree_leaves_with_path(owners, is_leaf=lambda x: x is None)
    for (path, index), grad in zip(leaves, jax.tree.leaves(grads), strict=True):
        name = jax.tree_util.keystr(path)
        if index is None:
            found.add(name.split("'")[1])
        if index is not None and TASKS[index] != task:
            assert not np.any(grad), name
        elif "['trunks']" in name:
            assert np.any(grad != 0), name
    assert found == parts
    mask = nnx.to_pure_dict(nnx.as_pure(shared(grads)))
    assert all(jax.tree.leaves(mask["affinity"]["narrow"]))
    assert mask["affinity"]["ctal"]["kernel"]
    for owned in (
        mask["own"],
        mask["affinity"]["own"],
        mask["affinity"]["ctal"]["own"],
    ):
        assert not any(jax.tree.leaves(owned))


@pytest.mark.slow
def test_tasks_are_coupled_on_several_scales():
    images = jnp.tile(IMAGES, (1, 2, 2, 1))
    losses_fn, params = losses_fn_of(filled(multi_scale), images)
    grads = jax.jit(jax.grad(lambda params: losses_fn(params)["a"]))(params)
    parts = {"backbone", "trunks", "affinity", "fuse", "propagation"}
    assert_coupled_by_what_is_shared_alone(grads, "a", parts)


@pytest.mark.slow
def test_learns_under_methods_of_three_kinds():
    """From one start; and gradients stay where they belong."""
    losses_fn, start = losses_fn_of(filled(ema_net), IMAGES)
    grads_of = jax.jit(mtl.task_grads(losses_fn))
    for method in (mtl.unitary(2), mtl.pcgrad(2, key=jax.random.key(0)), mtl.uw(2)):
        tx = optax.chain(method, optax.adam(1e-2))

        @jax.jit
        def step(params, state, grads, losses, tx=tx):
            updates, state = tx.update(grads, state, params, losses=losses)
            return optax.apply_updates(params, updates), state

        params, state, history = start, tx.init(start), []
        for _ in range(50):
            losses, grads = grads_of(params)
            params, state = step(params, state, grads, losses)
            history.append(losses)
        left = np.mean(history[-5:], axis=0) / history[0]
        assert np.all(left < 0.6), left
    for index, task in enumerate(sorted(TASKS)):  # losses of a dict are sorted
        of_task = jax.tree.map(lambda x, index=index: x[index], grads)
        parts = {"backbone", "trunks", "affinity"}
        assert_coupled_by_what_is_shared_alone(of_task, task, parts)


@pytest.mark.slow
def test_predictions_have_the_size_of_the_image():
    """Whatever divides it; in the dtype asked for."""

    def predictions(images):
        options = {"dtype": images.dtype, "rngs": nnx.Rngs(0)}
        backbone = ConvBackbone((4, 6), **options)
        net = MultiScaleEMANet(backbone, OUTPUTS, (4, 6), (5, 7), features=4, **options)
        return net.with_initial(images)

    images = jnp.ones((2, 18, 26, 3), jnp.bfloat16)
    outputs, initial = jax.eval_shape(predictions, images)
    for task, channels in OUTPUTS.items():
        found = [outputs[task], *initial[task]]
        assert [y.shape for y in found] == [(2, 18, 26, channels)] * 3
        assert {y.dtype for y in found} == {images.dtype}


def test_a_wrong_grid_is_an_error():
    def prediction(images):
        return ema_net((4, 4))(images)

    with pytest.raises(ValueError, match=r"is \(8, 8\).*built for grid=\(4, 4\)"):
        jax.eval_shape(prediction, IMAGES)


@pytest.mark.slow
def test_tasks_share_each_channel_or_groups_of_the_reference():
    scores = jnp.log(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))[None, None, None]

    def layer(**options):
        return nnx.eval_shape(
            lambda: FeaturePropagation(TASKS, 3, rngs=nnx.Rngs(0), **options)
        )

    ours = layer().weights(scores)[0, 0, 0]
    wanted = [1 / 5, 2 / 7, 3 / 9, 4 / 5, 5 / 7, 6 / 9]
    np.testing.assert_allclose(ours, wanted, rtol=1e-5)
    theirs = layer(reference_order=True).weights(scores)[0, 0, 0]
    wanted = [1 / 3, 2 / 3, 3 / 7, 4 / 7, 5 / 11, 6 / 11]
    np.testing.assert_allclose(theirs, wanted, rtol=1e-5)
    net = nnx.eval_shape(partial(multi_scale, reference_fpm_order=True))
    assert all(part.reference_order for part in net.propagation)
