"""EMA-Net on one scale and on several: what is whose, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mtl_optax as mtl
from mtl_optax.nn import ConvBackbone, EMANet, MultiScaleEMANet, owner, shared
from mtl_optax.nn.multi_scale_ema_net import FeaturePropagation

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
    backbone = ConvBackbone((4, 6, 8), rngs=rngs)
    return MultiScaleEMANet(
        backbone, OUTPUTS, (4, 6, 8), (4, 4), features=4, rngs=rngs, **options
    )


IMAGES = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))


def losses_fn_of(net, images):
    """Two dense tasks: signs of two colours' sum and difference, and a mean."""
    graphdef, params, rest = nnx.split(net, nnx.Param, ...)
    red, green, blue = (images[..., c : c + 1] for c in range(3))
    targets = {
        "b": jnp.concatenate([jnp.sign(red + green), jnp.sign(red - green)], axis=-1),
        "a": (red + green + blue) / 3,
    }

    def losses_fn(params):
        net = nnx.merge(graphdef, params, rest, copy=True)
        outputs, initial = net.with_initial(images)
        error = {
            task: [jnp.mean((y - targets[task]) ** 2) for y in [final, *initial[task]]]
            for task, final in outputs.items()
        }
        return {t: e[0] + sum(e[1:]) / len(e[1:]) for t, e in error.items()}

    return losses_fn, params


@pytest.mark.parametrize(
    ("build", "images"),
    [(ema_net, IMAGES), (multi_scale, jnp.tile(IMAGES, (1, 2, 2, 1)))],
)
def test_tasks_are_coupled_by_what_is_shared_alone(build, images):
    """Exact zeros on what a task owns; its initial features serve the others."""
    losses_fn, params = losses_fn_of(filled(build), images)
    losses, grads = jax.jit(mtl.task_grads(losses_fn))(params)
    assert list(losses) == ["a", "b"]
    owners, seen = owner(sorted(TASKS))(grads), set()
    leaves = jax.tree_util.tree_leaves_with_path(owners, is_leaf=lambda x: x is None)
    for (path, task), grad in zip(leaves, jax.tree.leaves(grads), strict=True):
        name = jax.tree_util.keystr(path)
        if task is not None:
            assert not np.any(grad[1 - task]), name
        elif "['trunks']['a']" in name or "['trunks']['b']" in name:
            other = 1 if "['trunks']['a']" in name else 0
            assert np.any(grad[other] != 0), name
        seen |= {name.split("'")[1]} if task is None else set()
    shared_parts = {"backbone", "trunks", "affinity"}
    assert seen == shared_parts | ({"fuse", "propagation"} if "fuse" in seen else set())
    mask = nnx.to_pure_dict(nnx.as_pure(shared(params)))
    assert not any(jax.tree.leaves(mask["own"]))
    assert all(jax.tree.leaves(mask["affinity"]["narrow"]))
    assert mask["affinity"]["ctal"]["kernel"]
    for part in (mask["affinity"]["own"], mask["affinity"]["ctal"]["own"]):
        assert not any(jax.tree.leaves(part))


@pytest.mark.parametrize("name", ["unitary", "pcgrad", "uw"])
def test_learns_under_methods_of_three_kinds(name):
    losses_fn, params = losses_fn_of(filled(ema_net), IMAGES)
    options = {"pcgrad": {"key": jax.random.key(0)}}.get(name, {})
    tx = optax.chain(getattr(mtl, name)(2, **options), optax.adam(1e-2))

    def step(carry, _):
        params, state = carry
        losses, grads = mtl.lazy_task_grads(losses_fn)(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), jnp.stack(
            jax.tree.leaves(losses)
        )

    @jax.jit
    def train(params):
        return jax.lax.scan(step, (params, tx.init(params)), None, 50)[1]

    losses = train(params)
    assert np.all(losses[-5:].mean(axis=0) < 0.6 * losses[:2].mean(axis=0)), losses


def test_predictions_have_the_size_of_the_image():
    rngs = nnx.Rngs(0)

    def shapes(images):
        backbone = ConvBackbone((4, 6), rngs=nnx.Rngs(0))
        net = MultiScaleEMANet(
            backbone, OUTPUTS, (4, 6), (5, 7), features=4, rngs=nnx.Rngs(0)
        )
        return net.with_initial(images)

    outputs, initial = jax.eval_shape(shapes, jnp.ones((2, 18, 26, 3)))
    for task, channels in OUTPUTS.items():
        found = [outputs[task], *initial[task]]
        assert [y.shape for y in found] == [(2, 18, 26, channels)] * 3
    with pytest.raises(ValueError, match=r"is \(8, 8\).*built for grid=\(4, 4\)"):
        filled(lambda: ema_net((4, 4)))(IMAGES)
    assert rngs


def test_tasks_share_each_channel_or_groups_of_the_reference():
    def layer(**options):
        return FeaturePropagation(TASKS, 3, rngs=nnx.Rngs(0), **options)

    scores = jnp.log(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))[None, None, None]
    ours = filled(layer).weights(scores)[0, 0, 0]
    np.testing.assert_allclose(
        ours, [1 / 5, 2 / 7, 3 / 9, 4 / 5, 5 / 7, 6 / 9], rtol=1e-5
    )
    theirs = filled(lambda: layer(reference_order=True)).weights(scores)[0, 0, 0]
    wanted = [1 / 3, 2 / 3, 3 / 7, 4 / 7, 5 / 11, 6 / 11]
    np.testing.assert_allclose(theirs, wanted, rtol=1e-5)
    net = nnx.eval_shape(lambda: multi_scale(reference_fpm_order=True))
    assert all(layer.reference_order for layer in net.propagation)
