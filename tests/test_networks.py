"""Every architecture for every kind of data set that it fits: shapes, gradients, words.

Shapes are computed without numbers. Gradients of architectures on images are held by
`test_nn_contract.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_optax.data.dataset import Columns, Dataset, Images, Molecules, Task
from mtl_optax.nn import ResNet, owner, save_weights
from mtl_optax.training.architectures import ARCHITECTURES, choices, coarse
from mtl_optax.training.encoders import DENSE, thumbnail
from mtl_optax.training.networks import build, forward, takes_inputs_by_task

PIXELS = (Task("depth", "depth"), Task("parts", "segmentation", 5))
NORMALS = Task("normals", "normals", 3)
LABELS = (
    Task("bought", "binary", 2),
    Task("price", "regression"),
    Task("stars", "ordinal", 5),
    Task("type", "class", 3),
)
SIZES = {"bought": 1, "price": 1, "stars": 4, "type": 3}
SIZES |= {"depth": 1, "normals": 3, "parts": 5}
KEY = jax.random.key(0)


def dataset(inputs, tasks, by_task=False):
    train = {task.name: () for task in tasks} if by_task else ()
    return Dataset("shop", tasks, {"train": train, "val": train}, inputs)


DATA = {
    "pixels": dataset(Images(32, 64), PIXELS),
    "pictures": dataset(Images(28, 28, 1), LABELS[:2]),
    "both": dataset(Images(32, 32), (LABELS[0], NORMALS)),
    "table": dataset(Columns(3, (4, 7)), LABELS),
    "molecules": dataset(Molecules(5, 10), LABELS),
}
X = {
    "pixels": jnp.ones((2, 32, 64, 3)),
    "pictures": jnp.ones((2, 28, 28, 1)),
    "both": jnp.ones((2, 32, 32, 3)),
    "table": {
        "numbers": jax.random.normal(KEY, (8, 3)),
        "categories": jax.random.randint(KEY, (8, 2), 0, 4),
    },
    "molecules": {
        "atoms": jnp.array([[6, 1, 1, 8, 0]] * 8),
        "positions": jax.random.normal(KEY, (8, 5, 3)),
    },
}
FAST = {"pixels": "small", "both": "small", "pictures": "small"}
WIDTHS = {"table": 8, "molecules": 8}
EVERY = [(kind, arch) for kind in DATA for arch in choices(DATA[kind])]
# Towers do not depend on what stands before them: pixels are for those that see more.
SEEN = ("hps", "mtan", "self_auxiliary", "ema_net", "multi_scale_ema_net")
SHAPES = [(k, arch) for k, arch in EVERY if k not in ("pixels", "both") or arch in SEEN]


def made(kind, arch, seed=0, **options):
    options = {"encoder": FAST.get(kind), "width": WIDTHS.get(kind, 4)} | options
    return build(DATA[kind], arch, **options, rngs=nnx.Rngs(seed))


def losses_of(outputs):
    return {task: jnp.mean((y - 1.0) ** 2) for task, y in outputs.items()}


def trained(net, x, key=KEY):
    """Outputs and terms, in the middle of a training."""
    return forward(net, x, key=key, epoch=5, epochs=10, losses_of=losses_of)


def total(net, x, key=KEY):
    outputs, terms = trained(net, x, key)
    return sum(losses_of(outputs).values()) + sum(terms.values())


# --- Shapes ---------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "arch"), SHAPES)
def test_outputs_have_the_shapes_of_their_tasks(kind, arch):
    data = DATA[kind]

    def both(x):
        return trained(made(kind, arch), x)

    outputs, terms = jax.eval_shape(both, X[kind])
    rows = jax.tree.leaves(X[kind])[0].shape[0]
    for task in data.tasks:
        size = data.inputs[:2] if task.kind in DENSE else ()
        assert outputs[task.name].shape == (rows, *size, SIZES[task.name])
    assert set(outputs) == set(data.names)
    has_terms = {"dselect_k", "self_auxiliary", "ema_net", "multi_scale_ema_net"}
    assert set(terms) == (set(data.names) if arch in has_terms else set())
    assert all(term.shape == () for term in terms.values())


@pytest.mark.parametrize(
    ("kind", "encoder", "arch"),
    [
        ("pixels", "segnet", "hps"),
        pytest.param("pixels", "segnet", "mtan", marks=pytest.mark.slow),
        ("pixels", "segnet", "cross_stitch"),
        pytest.param("pixels", "resnet50", "ema_net", marks=pytest.mark.slow),
        ("pictures", "resnet18", "mtan"),
        ("both", "resnet50", "hps"),
    ],
)
def test_other_encoders(kind, encoder, arch):
    def outputs(x):
        return made(kind, arch, encoder=encoder, width=2)(x)

    shapes = jax.eval_shape(outputs, X[kind])
    assert {t: y.shape[-1] for t, y in shapes.items()} == {
        task: SIZES[task] for task in DATA[kind].names
    }
    for task in DATA[kind].tasks:
        if task.kind in DENSE:
            assert shapes[task.name].shape[1:3] == DATA[kind].inputs[:2]


def test_it_computes_in_bfloat16_with_parameters_in_float32():
    net = made("table", "ple", dtype=jnp.bfloat16)
    assert {y.dtype for y in net(X["table"]).values()} == {jnp.dtype(jnp.bfloat16)}
    params = jax.tree.leaves(nnx.state(net, nnx.Param))
    assert {leaf.dtype for leaf in params} == {jnp.dtype(jnp.float32)}


# --- Gradients ------------------------------------------------------------------------


def moved(net, x, keys):
    """For each leaf whether any of the gradients is not 0."""
    graphdef, params, rest = nnx.split(net, nnx.Param, ...)

    @jax.jit
    @jax.grad
    def grads_of(params, key):
        return total(nnx.merge(graphdef, params, rest, copy=True), x, key)

    grads = [nnx.to_pure_dict(grads_of(params, key)) for key in keys]
    return jax.tree.map(lambda *leaves: bool(np.any(np.abs(leaves) > 0)), *grads)


@pytest.mark.parametrize(
    ("kind", "arch"),
    [("table", arch) for arch in choices(DATA["table"])]
    + [("molecules", "hps"), ("both", "hps")],
)
def test_a_step_moves_every_leaf(kind, arch):
    """In "ltb" over several draws: a copy that no task chose has no gradient."""
    keys = jax.random.split(KEY, 20 if arch == "ltb" else 1)
    for path, yes in jax.tree_util.tree_leaves_with_path(
        moved(made(kind, arch), X[kind], keys)
    ):
        assert yes, f"{jax.tree_util.keystr(path)} has no gradient"


def test_owners_are_told_behind_a_front():
    net = made("table", "cgc")
    owners = owner(DATA["table"].names)(nnx.to_pure_dict(nnx.state(net, nnx.Param)))
    assert set(jax.tree.leaves(owners["front"])) == set()
    assert set(jax.tree.leaves(owners["net"]["own"])) == {0, 1, 2, 3}


# --- How each is called ---------------------------------------------------------------


def test_ltb_draws_with_a_key_and_takes_the_largest_without():
    net = made("table", "ltb")
    x = X["table"]
    first = forward(net, x)[0]["price"]
    np.testing.assert_array_equal(first, net(x)["price"])
    draws = [
        forward(net, x, key=jax.random.key(seed), epoch=5, epochs=10)[0]["price"]
        for seed in range(4)
    ]
    assert any(np.any(draw != first) for draw in draws)
    warm = forward(net, x, key=KEY, epoch=0, epochs=10)[0]["price"]
    other = forward(net, x, key=jax.random.key(1), epoch=0, epochs=10)[0]["price"]
    np.testing.assert_array_equal(warm, other)  # the sum of all copies


def test_terms_of_other_predictions_need_losses():
    net = made("table", "self_auxiliary")
    assert forward(net, X["table"])[1] == {}
    terms = trained(net, X["table"])[1]
    assert all(np.isfinite(term) and term > 0 for term in terms.values())


def test_tasks_with_inputs_of_their_own():
    images = dataset(Images(28, 28, 1), LABELS[:2], by_task=True)
    shared = dataset(Images(28, 28, 1), LABELS[:2])
    assert choices(images) == choices(shared)  # rows are joined where they must be
    assert not takes_inputs_by_task(
        build(images, "ltb", "small", width=2, rngs=nnx.Rngs(0))
    )
    net = build(images, "hps", "small", width=2, rngs=nnx.Rngs(0))
    assert takes_inputs_by_task(net)
    x = {"bought": X["pictures"], "price": X["pictures"][:1]}
    shapes = nnx.eval_shape(lambda net: net(x), net)
    assert {t: y.shape for t, y in shapes.items()} == {
        "bought": (2, 1),
        "price": (1, 1),
    }


def test_rows_of_a_table_may_differ_by_task():
    for arch in ("hps", "soft_modular"):
        net = made("table", arch)
        few = jax.tree.map(lambda x: x[:3], X["table"])
        outputs = net({"bought": few, "type": X["table"]})
        assert {t: y.shape for t, y in outputs.items()} == {
            "bought": (3, 1),
            "type": (8, 3),
        }
        whole = net(X["table"])
        np.testing.assert_allclose(outputs["bought"], whole["bought"][:3], rtol=1e-5)
    assert not takes_inputs_by_task(made("table", "mmoe"))


def test_gates_read_few_numbers_of_an_image_of_any_size():
    for size in (7, 32, 288):
        assert thumbnail(jnp.ones((1, size, size, 3))).shape == (1, 48)
    quarter = jnp.zeros((1, 8, 8, 1)).at[0, :4, :4].set(1.0)
    small = thumbnail(quarter).reshape(4, 4)
    assert small[0, 0] > 0.95
    assert small[3, 3] == 0


def test_affinities_are_of_few_positions():
    assert coarse((36, 48)) == 1
    assert coarse((72, 96)) == 2  # NYUv2 at a fourth
    assert coarse((7, 11)) == 1
    assert coarse((61, 67)) == 1  # primes: no coarser grid fits


# --- Weights --------------------------------------------------------------------------


def test_every_copy_of_an_encoder_loads_the_weights(tmp_path):
    path = tmp_path / "small.safetensors"
    trained = ResNet((2, 2, 2), width=4, rngs=nnx.Rngs(7))
    save_weights(trained, path)
    net = made("pixels", "cross_stitch", weights=path)
    for task in DATA["pixels"].names:
        kernel = net.net.stages[task][0].layers[0].kernel[...]
        np.testing.assert_array_equal(kernel, trained.conv1.kernel[...])
    assert len(net.notes) == len(PIXELS)
    assert "75 arrays loaded" in net.notes[0]


def test_molecules_load_their_front_and_tables_nothing(tmp_path):
    path = tmp_path / "front.safetensors"
    save_weights(made("molecules", "hps", seed=1).front, path)
    net = made("molecules", "mmoe", weights=path)
    wanted = made("molecules", "hps", seed=1).front.elements.embedding[...]
    np.testing.assert_array_equal(net.front.elements.embedding[...], wanted)
    with pytest.raises(ValueError, match="a table's embeddings are of its own"):
        made("table", "hps", weights=path)


# --- What does not fit ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "arch", "encoder", "message"),
    [
        ("table", "mtan", None, "has columns .* What fits: hps, cross_stitch, mmoe"),
        (
            "pictures",
            "ema_net",
            None,
            "has images and tasks of kind binary, regr",
        ),
        ("pixels", "soft_modular", None, "arch='soft_modular' does not fit data"),
        ("table", "nonsense", None, "arch='nonsense' does not fit data set 'shop'"),
        ("pictures", "hps", "segnet", "What fits: resnet18, resnet50, small"),
        ("pixels", "ema_net", "segnet", "'ema_net' of data .* fits: resnet50, small"),
        ("molecules", "hps", "mlp", "What fits: distance_net"),
    ],
)
def test_what_does_not_fit_is_said_with_what_does(kind, arch, encoder, message):
    with pytest.raises(ValueError, match=message):
        build(DATA[kind], arch, encoder, rngs=nnx.Rngs(0))


def test_defaults_and_every_name():
    assert choices(DATA["pixels"])["hps"][0] == "segnet"
    assert choices(DATA["pictures"])["hps"][0] == "resnet18"
    assert choices(DATA["both"])["hps"] == ["resnet50", "small"]
    assert {arch for _, arch in EVERY} == set(ARCHITECTURES)
