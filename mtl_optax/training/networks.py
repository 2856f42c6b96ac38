"""Networks for a data set: any architecture of `mtl_optax.nn` that fits what it holds.

>>> from flax import nnx
>>> import jax, jax.numpy as jnp
>>> from mtl_optax.data.dataset import Columns, Dataset, Task
>>> tasks = (Task("bought", "binary", 2), Task("price", "regression"))
>>> data = Dataset("shop", tasks, {"train": ()}, Columns(3, (7,)))
>>> net = build(data, "mmoe", width=8, rngs=nnx.Rngs(0))
>>> x = {"numbers": jnp.ones((4, 3)), "categories": jnp.zeros((4, 1), int)}
>>> outputs, terms = forward(net, x)
>>> {task: y.shape for task, y in outputs.items()}, terms
({'bought': (4, 1), 'price': (4, 1)}, {})
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax import nn
from mtl_optax.data.dataset import Dataset
from mtl_optax.nn.sharing import is_by_task
from mtl_optax.training.architectures import ARCHITECTURES, SoftModular, choices
from mtl_optax.training.encoders import Parts

Outputs = dict[str, jax.Array]
LossesOf = Callable[[Outputs], Mapping[str, jax.Array]]


class Network(nnx.Module):
    """An architecture behind the front that makes rows of tables or molecules.

    Args:
      net: of `mtl_optax.nn`.
      front: from inputs to what `net` reads; None hands inputs on.
      notes: what the user should know of how it was made.
    """

    def __init__(self, net: Any, front: Any = None, notes: tuple[str, ...] = ()):
        self.net, self.front, self.notes = net, front, notes

    def __call__(self, inputs: Any) -> Outputs:
        """Outputs of each task, as in evaluation."""
        return self.net(self.read(inputs))

    def read(self, inputs: Any) -> Any:
        """What the architecture reads; of each task, where inputs differ by task."""
        if self.front is None:
            return inputs
        if is_by_task(inputs, self.net.own):
            return {task: self.front(x) for task, x in inputs.items()}
        return self.front(inputs)


def build(
    dataset: Dataset,
    arch: str,
    encoder: str | None = None,
    *,
    rngs: nnx.Rngs,
    width: int | None = None,
    dtype: Any = None,
    weights: Path | str | None = None,
) -> Network:
    """A network for all tasks of a data set.

    Called with inputs as the data set holds them, it returns a dict from tasks to
    outputs: of pixels, `[B, H, W, size]` (segmentation), `[B, H, W, 1]` (depth) and
    `[B, H, W, 3]` (normals, of any length), at the size of the image; of examples,
    `[B, size]` (class), `[B, size - 1]` (ordinal), `[B, 1]` (binary, regression).

    Architectures that have several encoders (experts, copies for tasks) have them
    without common parts. Tables and molecules are read by one front that all tasks
    share, embeddings or a message-passing network; the architecture is made of dense
    layers on its rows. Gates of mixtures read these rows, or, of an image or map, the
    means of 4 × 4 parts of it.

    Args:
      dataset: its inputs and tasks say what is built; no example is read.
      arch: of `ARCHITECTURES`; `choices` says which fit.
      encoder: None takes the first of `choices`.
      rngs: of all initial values, and of dropout: one default stream.
      width: channels of the encoder's first stage, or units of the first dense layer;
        None takes the published number.
      dtype: of the computation; parameters are float32.
      weights: path of a safetensors file for the encoder, which every copy loads;
        `notes` of the network say what was loaded.

    Raises:
      ValueError: where architecture or encoder do not fit the data set; for `weights`
        of a table, or a file that does not fit, see :func:`mtl_optax.nn.load_weights`.

    Cost: T encoders for "cross_stitch" and "ltb", T + 1 for "cgc" and "ple", 4 for
    "mmoe" and "dselect_k"; one for the others.
    """
    encoder = fitting(dataset, arch, encoder)
    parts = Parts(dataset, encoder, width, dtype, weights, rngs)
    net = ARCHITECTURES[arch].build(parts)
    return Network(net, parts.front, tuple(parts.notes))


def fitting(dataset: Dataset, arch: str, encoder: str | None = None) -> str:
    """The encoder, if it and the architecture fit the data set; else a ValueError."""
    fit = choices(dataset)
    if arch not in fit:
        raise ValueError(misfit("arch", arch, dataset, fit))
    encoder = encoder or fit[arch][0]
    if encoder not in fit[arch]:
        raise ValueError(
            misfit("encoder", encoder, dataset, fit[arch], f" {arch!r} of")
        )
    return encoder


def takes_inputs_by_task(net: Network) -> bool:
    """Whether inputs may be a dict from tasks to those of each.

    Others read one array of all tasks' rows: :func:`mtl_optax.data.loading.joined`.
    """
    return isinstance(net.net, (nn.HardSharing, nn.SelfAuxiliary, SoftModular))


def forward(
    net: Network,
    inputs: Any,
    *,
    key: Any = None,
    epoch: Any = 0,
    epochs: Any = 1,
    losses_of: LossesOf | None = None,
) -> tuple[Outputs, Outputs]:
    """Outputs of each task, and what training adds to its loss.

    Whether batch normalisation and dropout train is the network's own state, see
    `net.train()` and `net.eval()`. Without key and `losses_of` it is the evaluation.

    Args:
      net: of `build`.
      inputs: as the data set holds them, in batches.
      key: of this step's draws, which "ltb" alone takes.
      epoch: number of the epoch, from 0, for the schedule of "ltb"; may be traced.
      epochs: of the whole training.
      losses_of: from outputs to losses of the batch, by task. With it "self_auxiliary"
        and the EMA-Nets give the losses of their other predictions.

    Returns:
      Outputs; and a dict from tasks to scalars to add to their losses, empty where the
      architecture has none.
    """
    x, inner = net.read(inputs), net.net
    if isinstance(inner, nn.LTB) and key is not None:
        return inner(x, key=key, **nn.ltb_schedule(epoch, epochs)), {}
    if isinstance(inner, nn.DSelectK):
        return inner.with_auxiliary(x)
    if losses_of is None:
        return inner(x), {}
    if isinstance(inner, nn.SelfAuxiliary):
        return inner.with_auxiliary(x, losses_of)
    if isinstance(inner, (nn.EMANet, nn.MultiScaleEMANet)):
        outputs, initial = inner.with_initial(x)
        return outputs, mean_losses(initial, losses_of)
    return inner(x), {}


def mean_losses(
    predictions: Mapping[str, list[jax.Array]], losses_of: LossesOf
) -> Outputs:
    """The mean over scales of each task's losses."""
    scales = [
        losses_of(dict(zip(predictions, scale, strict=True)))
        for scale in zip(*predictions.values(), strict=True)
    ]
    return {
        task: jnp.mean(jnp.stack([losses[task] for losses in scales]))
        for task in predictions
    }


def misfit(what: str, name: str, dataset: Dataset, fit: Any, where: str = "") -> str:
    """The message for what does not fit a data set."""
    kinds = ", ".join(sorted({task.kind for task in dataset.tasks}))
    return (
        f"build: {what}={name!r} does not fit{where} data set {dataset.name!r}, which "
        f"has {type(dataset.inputs).__name__.lower()} and tasks of kind {kinds}. "
        f"What fits: {', '.join(fit)}."
    )
