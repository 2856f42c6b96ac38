"""What each architecture's paper says of it, and no row of the contract can."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import IMAGES, ROWS, TASKS, cgc, ltb, mtan
from flax import nnx

from mtl_optax.nn import (
    CGC,
    LTB,
    MTAN,
    PLE,
    CrossStitch,
    DSelectK,
    HardSharing,
    MMoE,
    ltb_schedule,
)
from mtl_optax.nn.dselect_k import (
    selector_regularizer,
    single_experts,
    smooth_step,
)
from mtl_optax.nn.ltb import straight_through
from mtl_optax.nn.mtan import pooled

equal = np.testing.assert_array_equal


def near(actual, wanted, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, wanted, rtol=rtol, atol=atol)


def linear(rngs, before=6, after=8):
    return nnx.Linear(before, after, rngs=rngs)


def parts(num_experts, rngs=None):
    """Plain linear experts and decoders."""
    rngs = rngs or nnx.Rngs(0)
    return (
        [linear(rngs) for _ in range(num_experts)],
        {task: linear(rngs, 8, 1) for task in TASKS},
    )


# --- Hard sharing and mixtures of experts ---------------------------------------------


def test_hard_sharing_of_one_task_is_the_plain_network():
    (encoder,), decoders = parts(1)
    (y,) = HardSharing(encoder, {"a": decoders["a"]})(ROWS).values()
    equal(y, decoders["a"](encoder(ROWS)))


def test_mmoe_mixes_by_gates_of_sum_one():
    experts, decoders = parts(3)
    net = MMoE(experts, decoders, num_features=6, rngs=nnx.Rngs(1))
    gate = net.own["b"]["gate"](ROWS)
    near(gate.sum(axis=1), 1)
    mixture = jnp.einsum("bm,mbh->bh", gate, jnp.stack([e(ROWS) for e in experts]))
    near(net(ROWS)["b"], decoders["b"](mixture))
    assert np.any(gate != net.own["a"]["gate"](ROWS))


def test_mmoe_of_one_expert_is_hard_sharing():
    experts, decoders = parts(1)
    net = MMoE(experts, decoders, num_features=6, rngs=nnx.Rngs(1))
    for task, y in HardSharing(experts[0], decoders)(ROWS).items():
        equal(net(ROWS)[task], y)


def test_mmoe_does_not_depend_on_the_order_of_experts():
    experts, decoders = parts(3)
    net = MMoE(experts, decoders, num_features=6, rngs=nnx.Rngs(1))
    order = [2, 0, 1]
    permuted = MMoE(
        [experts[m] for m in order], decoders, num_features=6, rngs=nnx.Rngs(1)
    )
    before = net(ROWS)
    for part in permuted.own.values():
        for leaf in (part["gate"].linear.kernel, part["gate"].linear.bias):
            leaf[...] = leaf[...][..., jnp.array(order)]
    for task, y in permuted(ROWS).items():
        near(y, before[task])


def test_gates_read_what_they_are_told():
    experts, decoders = parts(2)
    net = MMoE(
        experts, decoders, num_features=1, read=lambda x: x[:, :1], rngs=nnx.Rngs(1)
    )
    other = ROWS.at[:, 1:].add(1)
    equal(net.own["a"]["gate"](ROWS), net.own["a"]["gate"](other))


def test_cgc_without_own_experts_is_mmoe():
    experts, decoders = parts(3)
    none = {task: [] for task in TASKS}
    net = CGC(experts, none, decoders, num_features=6, rngs=nnx.Rngs(1))
    mmoe = MMoE(experts, decoders, num_features=6, rngs=nnx.Rngs(1))
    for task, y in mmoe(ROWS).items():
        equal(net(ROWS)[task], y)


def test_the_first_columns_of_a_gate_of_cgc_are_the_shared_experts():
    net = cgc(nnx.Rngs(0), jnp.float32)
    net.eval()
    part = net.own["b"]
    part["gate"].linear.bias[...] = jnp.array([0.0, 1e4, 0.0])
    near(net(ROWS)["b"], part["decoder"](part["experts"][0](ROWS)))


@pytest.mark.parametrize("shared_gate", [True, False])
def test_ple_of_one_level_is_cgc(shared_gate):
    experts, decoders = parts(4)
    shared, own = experts[:2], {"a": [experts[2]], "b": [experts[3]]}
    net = PLE(
        [shared],
        {task: [of_task] for task, of_task in own.items()},
        decoders,
        input_shape=(6,),
        shared_gate=shared_gate,
        rngs=nnx.Rngs(1),
    )
    wanted = CGC(shared, own, decoders, num_features=6, rngs=nnx.Rngs(1))
    for task, y in wanted(ROWS).items():
        equal(net(ROWS)[task], y)


def test_both_modes_of_ple_agree_for_one_task_without_own_experts():
    """Once the shared gate equals the task's: both mix the same experts."""
    rngs = nnx.Rngs(0)
    shared = [[linear(rngs), linear(rngs)], [linear(rngs, 8), linear(rngs, 8)]]
    decoders = {"a": linear(rngs, 8, 1)}
    with_gate, without = (
        PLE(
            shared,
            {"a": [[], []]},
            decoders,
            input_shape=(6,),
            shared_gate=shared_gate,
            rngs=nnx.Rngs(1),
        )
        for shared_gate in (True, False)
    )
    with_gate.own["a"]["gates"] = without.own["a"]["gates"]
    with_gate.gates[0] = without.own["a"]["gates"][0]
    near(with_gate(ROWS)["a"], without(ROWS)["a"])


def test_gates_of_ple_have_the_features_of_their_level():
    rngs = nnx.Rngs(0)
    own = {task: [[linear(rngs, 6, 5)], [linear(rngs, 5, 7)]] for task in TASKS}
    net = PLE(
        [[linear(rngs, 6, 5)] * 2, [linear(rngs, 5, 7)]],
        own,
        {task: linear(rngs, 7, 1) for task in TASKS},
        input_shape=(6,),
        rngs=rngs,
    )
    shapes = [gate.linear.kernel.shape for gate in net.own["a"]["gates"]]
    assert shapes == [(6, 3), (5, 2)]
    assert [gate.linear.kernel.shape for gate in net.gates] == [(6, 4)]


# --- Cross-stitch and branches --------------------------------------------------------


def stitched_nets(coefficients):
    rngs = nnx.Rngs(0)
    stages = {task: [linear(rngs), jnp.tanh, linear(rngs, 8)] for task in TASKS}
    decoders = {task: linear(rngs, 8, 1) for task in TASKS}
    return CrossStitch(stages, decoders, coefficients=coefficients)


def by_hand(net, between):
    """T tasks of three stages, whose activations `between` mixes."""
    a, b = (net.stages[task] for task in TASKS)
    values = [a[0](ROWS), b[0](ROWS)]
    for s in (1, 2):
        mixed = between(*values)
        values = [a[s](mixed[0]), b[s](mixed[1])]
    return {t: net.own[t](v) for t, v in zip(TASKS, values, strict=True)}


@pytest.mark.parametrize(
    ("coefficients", "between"),
    [
        (
            jnp.eye(2),
            lambda a, b: (a, b),
        ),  # two networks that know nothing of each other
        (1.0, lambda a, b: (a + b, a + b)),  # LibMTL's start
        (None, lambda a, b: (0.9 * a + 0.1 * b, 0.1 * a + 0.9 * b)),
    ],
)
def test_cross_stitch_mixes_by_its_coefficients(coefficients, between):
    net = stitched_nets(coefficients)
    wanted = by_hand(net, between)
    for task, y in net(ROWS).items():
        near(y, wanted[task])


@pytest.mark.slow
def test_every_coefficient_has_a_gradient():
    net = stitched_nets(None)
    grads = nnx.grad(lambda net: sum(jnp.sum(y**2) for y in net(ROWS).values()))(net)
    coefficients = np.asarray(grads["coefficients"][...])
    assert coefficients.shape == (2, 2, 2)
    assert np.all(np.isfinite(coefficients) & (coefficients != 0))


def test_branches_are_one_hot_with_the_gradient_of_softmax():
    logits, key = jnp.array([[0.3, -1.0, 0.5], [2.0, 0.0, 0.0]]), jax.random.key(3)
    noise = jax.random.gumbel(key, logits.shape)
    hard, pull = jax.vjp(lambda z: straight_through(z, key, 0.7), logits)
    equal(hard, jax.nn.one_hot(jnp.argmax(logits + noise, axis=1), 3))
    cotangent = jnp.arange(6.0).reshape(2, 3)
    _, soft_pull = jax.vjp(lambda z: jax.nn.softmax((z + noise) / 0.7), logits)
    near(pull(cotangent)[0], soft_pull(cotangent)[0])
    assert np.all(pull(cotangent)[0] != 0)


def test_branches_are_drawn_by_the_softmax_of_the_logits():
    logits = jnp.log(jnp.array([0.1, 0.6, 0.3]))
    many = jnp.broadcast_to(logits, (4000, 3))
    drawn = straight_through(many, jax.random.key(0), 5.0).mean(axis=0)
    near(drawn, [0.1, 0.6, 0.3], atol=0.03, rtol=0)


def test_schedule_of_branches():
    def at(epoch):
        return {k: v.item() for k, v in ltb_schedule(epoch, 200).items()}

    assert at(0) == {"temperature": 10.0, "warm_up": True}
    assert at(1)["warm_up"] is True
    assert at(3) == {"temperature": 5.0, "warm_up": False}
    near(at(199)["temperature"], 10 / np.sqrt(200))


def test_ltb_sums_draws_and_decides():
    net = ltb(nnx.Rngs(0), jnp.float32)
    net.eval()
    stages, key = net.stages, jax.random.key(0)

    def through(a, b):
        """Outputs, if the second stages read these."""
        last = {"a": stages["a"][1](a), "b": stages["b"][1](b)}
        return {task: net.own[task](value) for task, value in last.items()}

    def check(outputs, wanted):
        for task, y in outputs.items():
            near(y, wanted[task])

    first = [stages[task][0](ROWS) for task in TASKS]
    check(net(ROWS, key=key, warm_up=True), through(sum(first), sum(first)))
    chosen = np.argmax(net.choices(key=key)[0], axis=1)
    check(net(ROWS, key=key), through(first[chosen[0]], first[chosen[1]]))
    net.logits[...] = jnp.array([[[0.0, 1.0], [1.0, 0.0]]])
    check(net(ROWS), through(first[1], first[0]))


# --- DSelect-k ------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 0.3, 4.0])
def test_smooth_step(gamma):
    t = gamma * jnp.array([-0.6, -0.5, -0.25, 0.0, 0.25, 0.5, 0.6])
    near(smooth_step(t, gamma), [0, 0, 0.15625, 0.5, 0.84375, 1, 1])
    slopes = jax.vmap(jax.grad(lambda t: smooth_step(t, gamma)))(t)
    near(slopes * gamma, [0, 0, 1.125, 1.5, 1.125, 0, 0])


def test_bits_number_the_experts():
    saturated = jnp.array([[-1.0, 1.0, 1.0], [1.0, -1.0, -1.0]])  # 6 and 1
    equal(single_experts(saturated, 8), jax.nn.one_hot(jnp.array([6, 1]), 8))
    near(single_experts(jnp.zeros(3), 8), jnp.full(8, 1 / 8))


@pytest.mark.parametrize(("num_experts", "is_one"), [(2, True), (3, False), (4, True)])
def test_weights_of_a_selector_sum_to_one_for_powers_of_two(num_experts, is_one):
    bits = jnp.array([0.1, -0.2])[: (num_experts - 1).bit_length()]
    total = float(single_experts(bits, num_experts).sum())
    missing = 0 if is_one else float(smooth_step(0.1) * smooth_step(-0.2))
    near(total, 1 - missing)
    assert (total > 1 - 1e-6) == is_one


def test_selector_regularizer_by_hand():
    q = jnp.array([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.5, 0.5]]])
    near(selector_regularizer(q, 2.0), 2 * 3 * np.log(2) / 2, rtol=1e-4)
    nowhere = jnp.zeros((1, 1, 3))
    assert np.isfinite(selector_regularizer(nowhere))
    two = jnp.array([[[0.2, 0.2, 0.1]], [[1.0, 0.0, 0.0]]])
    near(selector_regularizer(two, 0.0), (1 / 0.5 + 1) / 2, rtol=1e-4)


def test_dselect_k_takes_k_experts_and_gives_each_task_its_term():
    experts, decoders = parts(8)
    net = DSelectK(experts, decoders, num_features=6, rngs=nnx.Rngs(1))
    for leaf in (net.own["a"]["gate"].bits.kernel, net.own["a"]["gate"].bits.bias):
        leaf[...] = 1e6 * leaf[...]
    weights, q = net.own["a"]["gate"](ROWS)
    assert set(np.asarray((weights != 0).sum(axis=1)).tolist()) <= {1, 2}
    near(weights.sum(axis=1), 1)
    mixture = jnp.einsum("bm,mbh->bh", weights, jnp.stack([e(ROWS) for e in experts]))
    outputs, terms = net.with_auxiliary(ROWS)
    near(outputs["a"], decoders["a"](mixture))
    near(terms["a"], selector_regularizer(q), rtol=1e-4, atol=0)
    assert terms["b"] > 100 * abs(terms["a"])  # of undecided selectors


def test_gamma_widens_the_step_itself():
    """In LibMTL it scales the initial weights only."""
    experts, decoders = parts(4)
    q = [
        DSelectK(experts, decoders, num_features=6, gamma=gamma, rngs=nnx.Rngs(1)).own[
            "a"
        ]["gate"](ROWS)[1]
        for gamma in (1.0, 10.0)
    ]
    near(q[0], q[1])  # logits in units of gamma


# --- MTAN -----------------------------------------------------------------------------


@pytest.mark.slow
def test_masks_lie_between_0_and_1_and_at_1_show_the_shared_network():
    net = mtan(nnx.Rngs(0), jnp.float32)
    net.eval()
    value = net.stem(IMAGES)
    first = net.stages[0][0](value)
    mask = net.own["a"]["masks"][0](first)
    assert mask.shape == first.shape
    assert np.all((mask > 0) & (mask < 1))
    for part in net.own["a"]["masks"]:
        part.second.norm.bias[...] += 1e3
    for before, after in net.stages:
        value = after(before(value))
    near(net(IMAGES)["a"], net.own["a"]["decoder"](value))
    assert np.any(np.abs(net(IMAGES)["b"] - net.own["b"]["decoder"](value)) > 1e-3)


@pytest.mark.slow
def test_a_task_of_mtan_does_not_depend_on_the_others():
    """Forward for one task alone, in training mode, is that for both."""
    net, alone = (mtan(nnx.Rngs(0), jnp.float32) for _ in range(2))
    del alone.own["a"]
    near(alone(IMAGES)["b"], net(IMAGES)["b"])


def test_pooling_only_where_the_next_stage_is_smaller():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert pooled(x, (4, 4)) is x
    equal(pooled(x, (2, 2))[0, :, :, 0], [[5, 7], [13, 15]])
    with pytest.raises(ValueError, match=r"size \(1, 1\) follows .*\(2, 2\) after"):
        pooled(x, (1, 1))


# --- Errors ---------------------------------------------------------------------------


def test_errors_name_what_differs():
    experts, decoders = parts(2)
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match=r"CGC: .*own_experts has \('a',\), decoders"):
        CGC(experts, {"a": []}, decoders, num_features=6, rngs=rngs)
    with pytest.raises(ValueError, match=r"CrossStitch: .*'a': 2, 'b': 1"):
        CrossStitch({"a": experts, "b": experts[:1]}, decoders)
    with pytest.raises(ValueError, match=r"LTB: .*stages has \('a',\), decoders"):
        LTB({"a": experts}, decoders)
    own = {"a": [[]], "b": [[], []]}
    with pytest.raises(ValueError, match=r"PLE: .*'shared_experts': 1, .*'b'\]\": 2"):
        PLE([experts], own, decoders, input_shape=(6,), rngs=rngs)
    with pytest.raises(ValueError, match=r"DSelectK selects among two .*HardSharing"):
        DSelectK(experts[:1], decoders, num_features=6, rngs=rngs)
    with pytest.raises(ValueError, match=r"MTAN: channels has 2 entries for 1 stages"):
        MTAN([(experts[0], experts[1])], [8, 8], decoders, rngs=rngs)
