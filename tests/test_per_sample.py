"""One task a sample: exact Gramians from one backward pass, or an error that says why.

Whatever is accepted equals the stacked Jacobian; whatever lets one sample reach another
raises while it is traced.
"""

import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax

import mtl_optax as mtl

B = 4
LABELS = jnp.arange(B) % 3
ACTIVE = jnp.array([True, False, True, True])
WEIGHTS = jnp.array([0.5, -1.0, 2.0, 0.25])
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def normal(*shape, seed=0):
    return 0.5 * jax.random.normal(jax.random.key(seed), shape)


def stacked_gramian(stack):
    leaves = [x.astype(jnp.float32) for x in jax.tree.leaves(stack)]
    flat = jnp.concatenate([x.reshape(x.shape[0], -1) for x in leaves], axis=1)
    return jnp.matmul(flat, flat.T, precision="highest")


def relative(found, wanted):
    return jnp.max(jnp.abs(found - wanted)) / jnp.max(jnp.abs(wanted))


def check(losses_fn, params, *batch, tolerance=2e-6):
    """Gramian, weighted sum and stack, against one gradient a sample."""

    @jax.jit
    def errors(params, *batch):
        losses, lazy = mtl.per_sample_grads(losses_fn)(params, *batch)
        direct, stack = mtl.task_grads(losses_fn)(params, *batch)
        weights = jnp.resize(WEIGHTS, losses.shape)
        gramian = relative(mtl.gramian(lazy), stacked_gramian(stack))
        sums = mtl.combine(lazy, weights), mtl.combine(stack, weights)
        rest = [sums, (lazy.stack(), stack), (losses, direct)]
        return gramian, [relative(*map(_flat, pair)) for pair in rest]

    of_gramian, others = errors(params, *batch)
    assert of_gramian < tolerance
    assert max(others) < tolerance, others


def _flat(tree):
    leaves = [jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(tree)]
    return jnp.concatenate(leaves)


MLP = {"w": normal(3, 5), "b": normal(5), "v": normal(5, 3, seed=1), "idle": normal(2)}
X = normal(B, 3, seed=2)


def mlp(params, x, y):
    hidden = jnp.tanh(x @ params["w"] + params["b"][None])
    return cross_entropy(hidden @ params["v"], y)


class ConvNet(nn.Module):
    train: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3), strides=(2, 2))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not self.train)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=3, padding="VALID")(x))
        x = nn.avg_pool(nn.GroupNorm(3)(x), (2, 2), (1, 1), "SAME")
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def of_linen(net, x):
    variables = net.init(jax.random.key(0), x)
    params = variables["params"]
    rest = {k: v for k, v in variables.items() if k != "params"}

    def losses_fn(params, x, y):
        logits, _ = net.apply({"params": params, **rest}, x, mutable=list(rest))
        return cross_entropy(logits, y)

    return losses_fn, params, x, LABELS


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.dense = nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm(x))
        return x + jax.nn.gelu(self.dense(x))


class Transformer(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(11, 8, rngs=rngs)
        self.position = nnx.Param(normal(5, 8, seed=9))
        self.block = Block(rngs)

    def __call__(self, tokens):
        x = self.embed(tokens) + self.position[...][None]
        x = nnx.remat(lambda block, x: block(x))(self.block, x)
        return self.embed.attend(self.block(x))  # tied, and the block twice


def transformer():
    graphdef, params = nnx.split(Transformer(nnx.Rngs(0)), nnx.Param)
    tokens = jax.random.randint(jax.random.key(3), (B, 5), 0, 11)

    def losses_fn(params, tokens):
        logits = nnx.merge(graphdef, params)(tokens)
        return cross_entropy(logits[:, :-1], tokens[:, 1:]).mean(axis=1)

    return losses_fn, params, tokens


LAYERS = {"w": normal(5, 6, 6), "b": normal(5, 6, seed=1)}


def scanned(params, x, y):
    @jax.checkpoint
    def layer(hidden, layer):
        return jnp.tanh(hidden @ layer["w"] + layer["b"][None]), None

    hidden, _ = lax.scan(layer, x @ params["in"], params["layers"])
    return cross_entropy(hidden @ params["in"].T, y)


def recurrent(params, x, y):
    """Time inside layers; the cells' gradients add up over time."""

    def layer(sequence, weights):
        def cell(hidden, x):
            inputs = x @ weights["w"] + weights["b"][None]
            hidden = jnp.tanh(hidden @ weights["u"] + inputs)
            return hidden, hidden

        return lax.scan(cell, jnp.zeros((x.shape[0], 6)), sequence)[1], None

    sequence, _ = lax.scan(layer, x.swapaxes(0, 1) @ params["in"], params["layers"])
    return cross_entropy(sequence[-1] @ params["in"].T, y)


def twice(params, x, y):
    """Twice one way, once the other way around, once through its square."""
    hidden = jnp.tanh(jnp.tanh(x @ params) @ params)
    hidden = jnp.tanh(hidden @ params.T) @ (params + params.T**2)
    return cross_entropy(hidden, y)


def of_one(params, x, y):
    return -jax.nn.log_softmax(jnp.tanh(params["w"].T @ x) @ params["v"])[y]


def picked(params, x, y):
    """Batch and positions in one axis, and each sample's own label by its number."""
    hidden = jnp.tanh(x.reshape(-1, 3) @ params["w"]).reshape(x.shape[0], -1)
    logp = jax.nn.log_softmax(hidden @ params["out"])
    return -logp[jnp.arange(x.shape[0]), y] + 0.1 * jnp.sum(params["w"] ** 2)


def normed(params, x, y):
    w = params["w"] / jnp.linalg.norm(params["w"], axis=0, keepdims=True)
    return cross_entropy((x @ (params["g"][None] * w)) @ params["v"] + params["own"], y)


def with_mean_of(data):
    """Samples meet, in data that is closed over: the slow way, but right."""

    def losses_fn(params):
        mean = jnp.mean(jnp.tanh(data @ params["w"]), axis=0)
        return jnp.sum((mean[None] - data[:, :1]) ** 2, axis=1)

    return losses_fn, {"w": MLP["w"]}


def swapped(params, x, y):
    """Time first; attention by hand, with the batch on other axes."""
    q = jnp.einsum("bli,ij->lbj", x, params["q"])
    k = jnp.einsum("bli,ij->bjl", x, params["k"])
    mixed = jnp.einsum(
        "lbm,bmi->bil", jax.nn.softmax(jnp.einsum("lbj,bjm->lbm", q, k)), x
    )
    return cross_entropy(jnp.sum(mixed, axis=2), y)


def stacked(params, x, y):
    """Two values side by side on an axis of their own, before or behind the batch."""
    one, two = x @ params["a"], x @ params["b"]
    before = jnp.stack([jnp.tanh(one), two]).sum(axis=0)
    behind = jnp.stack([one * y[:, None], two], axis=-1)
    first, second = jnp.unstack(behind, axis=2)
    return jnp.sum(before * first + second**2, axis=1)


def of_tasks(params, x):
    """A batch for each task, whose rows lie together where tasks share; own heads."""
    hidden = jnp.tanh(x.reshape(-1, x.shape[-1]) @ params["trunk"])
    hidden = hidden.reshape(*x.shape[:2], -1)
    return jnp.mean(jnp.einsum("knh,kh->kn", hidden, params["heads"]) ** 2, axis=1)


TASKS = {"trunk": normal(48, 48), "heads": normal(B, 48)}
BATCHES = normal(B, 16, 48, seed=5)
RNN = {"u": normal(2, 6, 6), "w": normal(2, 6, 6, seed=1), "b": normal(2, 6, seed=2)}
SEQUENCE = normal(B, 5, 3, seed=4)
MODELS = {
    "mlp": (mlp, MLP, X, LABELS),
    "of_one": (jax.vmap(of_one, (None, 0, 0)), MLP, X, LABELS),
    "convolutions": of_linen(ConvNet(), normal(B, 12, 12, 2)),
    "transformer": transformer(),
    "scanned": (scanned, {"in": normal(3, 6), "layers": LAYERS}, X, LABELS),
    "recurrent": (recurrent, {"in": normal(3, 6), "layers": RNN}, SEQUENCE, LABELS),
    "twice": (twice, normal(3, 3), X, LABELS),
    "picked": (picked, {"w": normal(3, 4), "out": normal(20, 3)}, SEQUENCE, LABELS),
    "normed": (
        normed,
        {"w": normal(3, 5), "g": normal(5), "v": normal(5, 3), "own": normal(B, 3)},
        X,
        LABELS,
    ),
    "mean": with_mean_of(X),
    "swapped": (
        swapped,
        {"q": normal(3, 4), "k": normal(3, 4, seed=1)},
        SEQUENCE,
        LABELS,
    ),
    "one sample": (mlp, MLP, X[:1], LABELS[:1]),
    "stacked": (stacked, {"a": normal(3, 5), "b": normal(3, 5, seed=1)}, X, LABELS),
    "of_tasks": (of_tasks, TASKS, BATCHES),
}
FAST = {"mlp", "twice", "scanned"}  # of the fast run


@pytest.mark.parametrize(
    "model",
    [pytest.param(m, marks=[pytest.mark.slow] * (m not in FAST)) for m in MODELS],
)
def test_exact(model):
    check(*MODELS[model])


def losses_of_batch(mix):
    """Losses by sample, after `mix` of the layer's outputs over the batch."""
    return lambda params, x, y: cross_entropy(mix(jnp.tanh(x @ params["w"]), y), y)


@jax.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, None), lambda _, ct: (jnp.clip(ct, -0.1, 0.1),))


@jax.custom_vjp
def looked_up(table, ids):
    return table[ids]


def _looked_up_backward(ids, ct):  # adds into a value that is not zero
    return jnp.ones((3, ct.shape[1])).at[ids].add(ct), None


looked_up.defvjp(lambda table, ids: (table[ids], ids), _looked_up_backward)

REFUSED = {
    "mean": (lambda h, y: h - jnp.mean(h, axis=0)[None], "back to single samples"),
    "softmax": (lambda h, y: jax.nn.softmax(h, axis=0), "back to single samples"),
    "contrastive": (lambda h, y: h @ h.T, "back to single samples"),
    "sort": (lambda h, y: jnp.sort(h, axis=0), "the batch"),
    "shuffled": (lambda h, y: h[y], "back to single samples"),
    "rolled": (lambda h, y: jnp.roll(h, 1, axis=0), "runs along the batch"),
    "halves": (
        lambda h, y: jnp.concatenate([2 * h[:2], h[2:]]),
        "runs along the batch",
    ),
    "cumulative": (lambda h, y: jnp.cumsum(h, axis=0), "runs along the batch"),
    "mapped": (lambda h, y: lax.map(jnp.sin, h), "runs along the batch"),
    "clipped": (lambda h, y: clipped(h), "has no rule|not linear"),
}


def test_a_batch_of_one_meets_nobody():
    """Whatever runs along the axis of one; parameters without axes too."""

    def losses_fn(params, x):
        y = jnp.tanh(x - x.mean(axis=0, keepdims=True) + params["shift"]) @ params["w"]
        return y * params["scale"] + jnp.sum(params["own"], axis=0)

    params = {"w": jnp.arange(1.0, 4), "own": jnp.ones((1, 1))}
    params |= {"shift": jnp.full((1, 3), 0.5), "scale": jnp.array(2.0), "idle": X}
    _, grads = mtl.per_sample_grads(losses_fn)(params, X[:1])
    wanted = jax.grad(lambda params: losses_fn(params, X[:1])[0])(params)
    tx = mtl.unitary(1)
    chex.assert_trees_all_close(tx.update(grads, tx.init(params), params)[0], wanted)
    stack = jax.tree.map(lambda g: g[0], grads.stack())
    chex.assert_trees_all_close(stack, wanted)
    square = sum(jnp.sum(g**2) for g in jax.tree.leaves(wanted))
    np.testing.assert_allclose(grads.gramian(), [[square]], rtol=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_samples_that_meet_are_refused(name):
    mix, why = REFUSED[name]
    fn = mtl.per_sample_grads(losses_of_batch(mix))
    with pytest.raises(ValueError, match=why) as error:
        jax.eval_shape(lambda *args: fn(*args)[0], MLP, X, LABELS)
    assert "mtl_optax.lazy_task_grads" in str(error.value)


def test_a_table_that_is_not_zero_is_refused():
    def losses_fn(table, y):
        return jnp.sum(looked_up(table, y), axis=1)

    with pytest.raises(ValueError, match="not linear in its cotangent at scatter-add"):
        mtl.per_sample_grads(losses_fn)(normal(3, 2), LABELS)


def test_batch_norm_is_refused_by_name():
    losses_fn, *rest = of_linen(ConvNet(train=True), normal(B, 12, 12, 2))
    message = "BatchNorm_0.*use_running_average=True"
    with pytest.raises(ValueError, match=message):
        mtl.per_sample_grads(losses_fn)(*rest)


def test_losses_that_are_not_by_sample():
    def mean(params, x, y):
        return jnp.mean(mlp(params, x, y))

    with pytest.raises(ValueError, match=r"an array \[B\].*mean over the batch"):
        mtl.per_sample_grads(mean)(MLP, X, LABELS)
    with pytest.raises(ValueError, match="lazy_task_grads"):
        mtl.per_sample_grads(lambda p: {"a": p})(1.0)


def step(method, make, active=None, **wrapped):
    """Update of one step, from gradients that `make` makes."""
    tx = getattr(mtl, method)(B, **wrapped)

    @jax.jit
    def update(params, x, y):
        _, grads = make(mlp)(params, x, y)
        return tx.update(grads, tx.init(params), params, active=active)[0]

    return update


METHODS = {"mgda": {}, "aligned_mtl": {}, "unitary": {}, "graddrop": {"key": 0}}
METHODS |= {"cagrad": {"granularity": "leaf"}}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_methods_take_them(method):
    for active in (None, ACTIVE):
        ours = step(method, mtl.per_sample_grads, active, **METHODS[method])
        others = step(method, mtl.task_grads, active, **METHODS[method])
        pair = ours(MLP, X, LABELS), others(MLP, X, LABELS)
        chex.assert_trees_all_close(*pair, rtol=1e-4, atol=1e-6)


def test_a_second_batch_weighs_them():
    tx = mtl.auto_lambda(B, learning_rate=0.1, optimizer=optax.sgd(1.0))
    args = {"active": ACTIVE, "validation_losses_fn": lambda p: mlp(p, -X, LABELS)}

    @jax.jit
    def updates(params):
        return [
            tx.update(make(mlp)(params, X, LABELS)[1], tx.init(params), params, **args)
            for make in (mtl.per_sample_grads, mtl.task_grads)
        ]

    ours, others = updates(MLP)
    chex.assert_trees_all_close(ours, others, rtol=1e-4, atol=1e-6)
    assert jnp.ptp(mtl.task_weights(others[1])[ACTIVE]) > 1e-3  # they do weigh


@pytest.mark.parametrize("method", ["upgrad", "unitary"])
def test_a_sample_without_numbers_that_is_not_active(method):
    update = step(method, mtl.per_sample_grads, ACTIVE)
    broken = X.at[1].set(jnp.nan)
    chex.assert_trees_all_close(
        update(MLP, broken, LABELS), update(MLP, X, LABELS), rtol=1e-6, atol=1e-7
    )


@pytest.mark.slow
def test_only_shared_leaves_and_auxiliary_output():
    def losses_fn(params, x, *, y):
        return mlp(params, x, y), {"x": x, "two": 2.0}

    shared = {"w": True, "b": True, "v": False, "idle": True}
    tx = mtl.on_shared(mtl.mgda(B), shared)
    (losses, aux), lazy = mtl.per_sample_grads(losses_fn, has_aux=True)(
        MLP, X, y=LABELS
    )
    np.testing.assert_array_equal(aux["x"], X)
    assert aux["two"] == 2.0
    np.testing.assert_array_equal(losses, lazy.losses)
    _, stack = mtl.task_grads(mlp)(MLP, X, LABELS)
    update = jax.jit(
        lambda make: tx.update(make(), tx.init(MLP), MLP)[0], static_argnums=0
    )
    updates = update(lambda: lazy), update(lambda: stack)
    chex.assert_trees_all_close(*updates, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_under_vmap_and_scan():
    def gramian(x):
        return mtl.gramian(mtl.per_sample_grads(mlp)(MLP, x, LABELS)[1])

    xs = jnp.stack([X, 2 * X])
    one_by_one = jnp.stack([gramian(x) for x in xs])  # eager
    mapped = jax.jit(jax.vmap(gramian))(xs)
    scanned = lax.scan(lambda carry, x: (carry, gramian(x)), 0, xs)[1]
    for other in (mapped, scanned):
        np.testing.assert_allclose(other, one_by_one, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_half_precision():
    params, x = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (MLP, X))
    check(mlp, params, x, LABELS, tolerance=1e-2)


@pytest.mark.parametrize("scale", [1e-22, 1e22])
@pytest.mark.slow
def test_gradients_whose_squares_are_no_numbers(scale):
    """One sample far out, and all of them; the weights are as for the others."""

    def losses_fn(params, x, y):
        return scale * mlp(params, x, y)

    tx = mtl.mgda(B)

    @jax.jit
    def weights(params, x, y):
        out = []
        for fn in (mlp, losses_fn):
            _, grads = mtl.per_sample_grads(fn)(params, x, y)
            out.append(mtl.task_weights(tx.update(grads, tx.init(params), params)[1]))
        return out

    np.testing.assert_allclose(*weights(MLP, X, LABELS), rtol=1e-4, atol=1e-6)


def arrays_of(fn, *args):
    """Shapes of all values in a program."""
    text = str(jax.make_jaxpr(fn)(*args))
    return set(re.findall(r"f32\[[\d,]*\]", text)), text


def test_no_gradient_of_a_sample_is_made_in_one_backward_pass():
    widths = 3, 17, 19, 3
    params = [normal(*pair) for pair in itertools.pairwise(widths)]

    def losses_fn(params, x, y):
        for w in params:
            x = jnp.tanh(x @ w)
        return cross_entropy(x, y)

    def both(params, x, y):
        _, lazy = mtl.per_sample_grads(losses_fn)(params, x, y)
        computed = lazy.computed()
        return computed.gramian(), computed.pull(WEIGHTS)

    shapes, text = arrays_of(both, params, X, LABELS)
    assert "f32[17,19]" in shapes
    assert not shapes & {f"f32[{B},17,19]", f"f32[{B},19,17]"}
    # Forward 3, cotangents 2, two for each layer's Gramian, last products 3.
    assert text.count("dot_general[") == 3 + 2 + 6 + 3


def test_gradients_of_tasks_with_a_batch_each_are_made_once():
    """Those of the trunk, cheaper than its factors, are there for the weighted sum."""

    def both(params, x):
        _, lazy = mtl.per_sample_grads(of_tasks)(params, x)
        trunk = lazy.select((False, True)).computed()
        return trunk.gramian(), trunk.pull(WEIGHTS)

    shapes, text = arrays_of(both, TASKS, BATCHES)
    assert f"f32[{B},48,48]" in shapes
    # Forward 2, heads' gradients and what they pull back, the trunk's, its Gramian.
    assert text.count("dot_general[") == 6


def test_layers_in_a_scan_give_factors():
    params = {"in": normal(3, 6), "layers": LAYERS}

    def gramian(params, x, y):
        return mtl.gramian(mtl.per_sample_grads(scanned)(params, x, y)[1])

    shapes, _ = arrays_of(gramian, params, X, LABELS)
    assert f"f32[5,{B},6]" in shapes
    assert not shapes & {f"f32[{B},5,6,6]", f"f32[5,{B},6,6]", f"f32[{B},6,6]"}
