r"""What tables of NYUv2 and Cityscapes average over: pixels, batches or images.

The published codes agree in each formula and in little else, and the numbers differ
from the second or third digit on. A convention is one of

========================  ============================================================
`"pixels"`                every valid pixel of the split weighs alike. LibMTL weighs
                          the errors of its batches by their valid pixels, which is
                          this, and takes the median over all pixels.
`"batches:N"`             errors, medians and shares of N pictures in the order of their
                          numbers, and the mean of these over the batches; mIoU and
                          pixel accuracy as "pixels". The codes of MTAN (since November
                          2020), CAGrad, Nash-MTL and FAMO print this, with N = 2 for
                          NYUv2 and 8 for Cityscapes. N is of the published
                          evaluation; our batches may be any multiple of it.
`"images"`                every number of each picture, and the mean over the pictures:
                          mIoU and pixel accuracy of MTAN's code until November 2020
                          (its README expects about 8% more of the change). Errors and
                          angles are those of "batches:1".
========================  ============================================================

**Counts** are sums over what is averaged: add those of batches with
`jax.tree.map(jnp.add, one, other)`. They are sums over single pictures first, so they
do not depend on how many devices share a batch, and pictures without a valid pixel,
such as those which fill the last batch, count nowhere.

**Where the codes fail, this does not.** A batch without a valid pixel makes their
epoch's depth or angles NaN; here it is left out. So is a class that occurs in neither
labels nor predictions, whose 0/0 makes their mIoU NaN. A predicted normal of length 0
is 90 degrees, not NaN. Their angles come from a clamped float32 arccos, which has
steps of 0.02 degrees near 0; medians here are right within 0.005 degrees.

**Where they leave out what is valid**, "batches:N" and "images" do as they do, and
"pixels" does not: their mask is a channel sum other than 0, which drops normals such as
(1, -1, 0). Conversely only "pixels" leaves depths of at most 1e-6 out of the relative
error, where one pixel may be the whole score.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtl_optax.analysis import metrics, normals
from mtl_optax.analysis.metrics import Average
from mtl_optax.core.arguments import checks

KINDS_OF_TASKS = ("depth", "normals", "segmentation")


def dense_counts(
    task_kind: str, outputs: ArrayLike, targets: ArrayLike, *, convention: str
) -> Any:
    """Counts of a batch, which add up over batches; see above for conventions.

    Args:
      task_kind: "segmentation", "depth" or "normals".
      outputs: `[B, H, W, C]`: logits of C classes, depth (C = 1), or normals (C = 3) of
        any length. Logits that are NaN count as some class, not as NaN.
      targets: `[B, H, W]` int, a class or -1; `[B, H, W, 1]`, 0 where there is no
        depth; `[B, H, W, 3]`, (0, 0, 0) where there is no normal.
      convention: `"pixels"`, `"batches:N"` with B a multiple of N, or `"images"`.

    Returns:
      A pytree of sums for :func:`dense_scores`, the same for a batch on one device and
      one that is split over several (inside `jit`; inside `shard_map` B is the number
      of pictures a device has).

    Raises:
      ValueError: for another kind or convention, shapes that do not fit, or pictures
        that do not fill batches of N.

    When not to use it: to choose between methods, which "pixels" alone serves best:
    the others weigh a pixel the more, the fewer valid ones its picture has.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.conventions import dense_counts, dense_scores
      >>> depth = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0]).reshape(2, 1, 3, 1)
      >>> guess = jnp.array([2.0, 2.0, 2.0, 9.0, 9.0, 1.0]).reshape(2, 1, 3, 1)
      >>> for way in ("pixels", "batches:1"):
      ...     counts = dense_counts("depth", guess, depth, convention=way)
      ...     print(way, dense_scores("depth", counts, convention=way)["AbsErr"])
      pixels 0.75
      batches:1 0.5

    References:
      `examples/nyu/utils.py` of `LibMTL
      <https://github.com/median-research-group/LibMTL>`_; `nyuv2/utils.py` of `CAGrad
      <https://github.com/Cranial-XIX/CAGrad>`_, whose comment has the formulas of the
      pictures; `experiments/nyuv2/trainer.py` of `Nash-MTL
      <https://github.com/AvivNavon/nash-mtl>`_.
    """
    group = _group(task_kind, convention)
    outputs, targets = jnp.asarray(outputs), jnp.asarray(targets)
    if group is None:
        return _pixels(task_kind, outputs, targets, as_published=False)
    if outputs.shape[0] % group:
        raise ValueError(
            f"dense_counts: {outputs.shape[0]} pictures do not fill batches of "
            f"{group}, as convention={convention!r} asks for. Take a multiple of "
            f"{group}, and fill the last batch with pictures that have no labels."
        )

    def of_picture(outputs: jax.Array, targets: jax.Array) -> Any:
        return _pixels(task_kind, outputs, targets, as_published=True)

    counts = jax.tree.map(
        lambda x: x.reshape(-1, group, *x.shape[1:]).sum(axis=1),
        jax.vmap(of_picture)(outputs, targets),
    )
    some = _counted(task_kind, counts) > 0
    return {
        name: metrics.average_of(score, some)
        for name, score in _scores(task_kind, counts).items()
    }


def dense_scores(
    task_kind: str, counts: Any, *, convention: str
) -> dict[str, jax.Array]:
    """The numbers of a table, from the counts of a split.

    Args:
      task_kind: "segmentation", "depth" or "normals".
      counts: from :func:`dense_counts` with this convention, added over batches.
      convention: as there.

    Returns:
      Scalars: "mIoU" and "PixAcc"; "AbsErr" and "RelErr"; or "mean angle" and "median
      angle" in degrees, "<11.25", "<22.5" and "<30" as shares in [0, 1]. NaN where
      nothing was counted.

    Raises:
      ValueError: for another kind or convention.

    When not to use it: on counts of a single batch, whose scores may not be averaged
    afterwards.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.conventions import dense_counts, dense_scores
      >>> logits = 9 * jnp.eye(3)[jnp.array([[[0, 1, 1]]])]
      >>> labels = jnp.array([[[0, 1, -1]]])
      >>> counts = dense_counts("segmentation", logits, labels, convention="pixels")
      >>> scores = dense_scores("segmentation", counts, convention="pixels")
      >>> {name: float(score) for name, score in scores.items()}
      {'mIoU': 1.0, 'PixAcc': 1.0}

    References:
      As :func:`dense_counts`.
    """
    if _group(task_kind, convention) is None:
        return _scores(task_kind, counts)
    return {name: average.mean for name, average in counts.items()}


def _group(task_kind: str, convention: str) -> int | None:
    """How many pictures are averaged first; None: none, pixels are counted at once."""
    checks.one_of("task_kind", task_kind, KINDS_OF_TASKS)
    way, _, number = convention.partition(":")
    if convention == "images":
        return 1
    if way == "batches" and number.isdecimal() and int(number) > 0:
        return None if task_kind == "segmentation" else int(number)
    if convention == "pixels":
        return None
    raise ValueError(
        f"convention must be 'pixels', 'images' or 'batches:N' with the number of "
        f"pictures in a batch, such as 'batches:2'; got {convention!r}."
    )


def _pixels(
    task_kind: str, outputs: jax.Array, targets: jax.Array, *, as_published: bool
) -> Any:
    """Counts over all pixels of these pictures."""
    if task_kind == "segmentation":
        guessed = jnp.argmax(outputs, axis=-1)
        return metrics.confusion_matrix(guessed, targets, outputs.shape[-1])
    if task_kind == "depth":
        valid = targets != 0
        least = 0 if as_published else 1e-6
        return {
            "AbsErr": metrics.absolute_error(outputs, targets, valid),
            "RelErr": metrics.relative_error(outputs, targets, valid, least),
        }
    normals.same_normals("dense_counts", outputs, targets)
    x, y, z = jnp.moveaxis(targets, -1, 0)
    summed = x + y + z != 0 if as_published else None
    return normals.angle_counts(outputs, targets, summed)


def _counted(task_kind: str, counts: Any) -> jax.Array:
    """How many pixels were valid."""
    if task_kind == "segmentation":
        return counts.sum(axis=(-2, -1))
    average: Average = counts["AbsErr"] if task_kind == "depth" else counts.average
    return average.counted


def _scores(task_kind: str, counts: Any) -> dict[str, jax.Array]:
    """Of counts over pixels; leading axes stay."""
    if task_kind == "segmentation":
        accuracy = metrics.pixel_accuracy(counts)
        return {"mIoU": metrics.mean_iou(counts), "PixAcc": accuracy}
    if task_kind == "depth":
        return {name: average.mean for name, average in counts.items()}
    angles = normals.normal_angles(counts)
    within = [angles.within[..., i] for i in range(len(normals.THRESHOLDS))]
    shares = {f"<{x:g}": s for x, s in zip(normals.THRESHOLDS, within, strict=True)}
    return {"mean angle": angles.mean, "median angle": angles.median, **shares}
