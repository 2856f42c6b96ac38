"""Gradients to feed to methods: matrices [T, P], and the trees they are cut into.

Everything here is NumPy float64; `tree_of` casts. Rows are task gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np

import mtl_optax as mtl

# The three matrices of the hand-checked examples.
ORTH = np.array([[1.0, 0.0], [0.0, 2.0]])
CONF = np.array([[1.0, 0.0], [-1.0, 1.0]])
JD = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
HAND = {"ORTH": ORTH, "CONF": CONF, "JD": JD}


def tree_of(matrix, dtype="float32", width=None):
    """Cuts the columns of [..., P] into leaves [...], [..., 2, k] and [..., r].

    `width` pads with zero columns, which change no inner product, so that matrices of
    several widths share one compilation.
    """
    matrix = np.asarray(matrix)
    if width is not None:
        pad = width - matrix.shape[-1]
        matrix = np.concatenate([matrix, np.zeros((*matrix.shape[:-1], pad))], axis=-1)
    lead, width = matrix.shape[:-1], matrix.shape[-1]
    pairs = (width - 1) // 2 if width >= 4 else 0
    cut = 2 * pairs + (width > 1)
    leaves = {}
    if width > 1:
        leaves["scalar"] = matrix[..., 0]
    if pairs:
        leaves["matrix"] = matrix[..., 1:cut].reshape(*lead, 2, pairs)
    if cut < width:
        leaves["vector"] = matrix[..., cut:]
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), leaves)


def flat(tree, width=None):
    """Undoes `tree_of` for one update, as float64, without the padding."""
    order = ("scalar", "matrix", "vector")
    parts = [np.ravel(np.asarray(tree[k], np.float64)) for k in order if k in tree]
    return np.concatenate(parts)[:width]


def params_of(gradients):
    """Parameters shaped like one task's gradients."""
    return jax.tree.map(lambda g: jnp.zeros(g.shape[1:], g.dtype), gradients)


def random_matrix(num_tasks, width=12, seed=0):
    """Independent Gaussian rows."""
    return np.random.default_rng(seed).standard_normal((num_tasks, width))


def pair(cosine, ratio, width=12, seed=0):
    """Two rows in general position, with this cosine and this ratio of norms."""
    basis, _ = np.linalg.qr(random_matrix(2, width, seed).T)
    first, other = basis.T
    second = cosine * first + np.sqrt(1 - cosine**2) * other
    return np.stack([first, ratio * second])


def stationary(num_tasks, width=12, seed=0):
    """Rows with a positive combination that is zero, lengths within a factor 4."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((num_tasks, width))
    positive = rng.uniform(0.5, 2.0, num_tasks)
    matrix[-1] = -(positive[:-1] @ matrix[:-1]) / positive[-1]
    return matrix


def hostile(num_tasks, width=12):
    """Named matrices that have broken published implementations."""
    rng = np.random.default_rng(num_tasks)
    base = random_matrix(num_tasks, width, seed=num_tasks)
    cases = {
        "random": base,
        "identical": np.repeat(base[:1], num_tasks, axis=0),
        "zero": np.zeros_like(base),
        "row_scales": base * np.logspace(-6, 6, num_tasks)[:, None],
        "tiny": base * 1e-10,
        "huge": base * 1e10,
        "more_tasks_than_columns": np.where(np.arange(width) < 2, base, 0),
    }
    if num_tasks > 1:
        half = num_tasks // 2
        cases["opposite"] = np.concatenate([-base[:1]] * half + [base[:1]] * half)
        if num_tasks % 2:
            cases["opposite"] = np.concatenate([cases["opposite"], base[-1:]])
        cases["one_zero_row"] = np.concatenate([base[:-1], np.zeros_like(base[:1])])
        cases["nearly_opposite"] = rng.choice([-1.0, 1.0], (num_tasks, 1)) * (
            base[:1] + 1e-3 * base
        )
    if num_tasks > 2:
        mixing = rng.standard_normal((num_tasks, 2))
        cases["rank_two"] = mixing @ base[:2]
        cases["repeated_row"] = np.concatenate([base[:-1], base[:1]])
    return cases


def as_rows(stacked, num_tasks):
    """The same gradients, made one by one: those of losses linear in the parameters."""
    leaves, treedef = jax.tree.flatten(stacked)

    def losses_fn(params):
        each = jax.tree.leaves(params)
        return tuple(
            sum(jnp.sum(g[t] * p) for g, p in zip(leaves, each, strict=True))
            for t in range(num_tasks)
        )

    params = jax.tree.unflatten(treedef, [jnp.zeros_like(g[0]) for g in leaves])
    return mtl.lazy_task_grads(losses_fn)(params)[1].computed()
