"""What the networks of a data set are made of: encoders, towers, and what gates read.

An encoder of images makes a map `[B, h, w, C]`, of which every tower reads what its
task asks for. Tables and molecules first become rows, in a front that all tasks share;
their encoders are dense layers on these.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.data.dataset import Columns, Dataset, Images, Molecules, Task
from mtl_optax.nn.blocks import resized
from mtl_optax.nn.deeplab import DeepLabHead
from mtl_optax.nn.embedding import MLP, ColumnEmbedding
from mtl_optax.nn.molecule import DistanceNet
from mtl_optax.nn.resnet import ResNet
from mtl_optax.nn.segnet import DenseHead, SegNet
from mtl_optax.nn.weights import load_weights

DENSE = ("segmentation", "depth", "normals")  # kinds with a label for each pixel
CLASSIFIER = ("fc.",)  # of torchvision's files; towers take its place
GRID = 4  # gates read the means of GRID × GRID parts of an image


class Encoder(NamedTuple):
    """An encoder of images by name.

    Fields:
      build: `(width, dilated, num_in, dtype, rngs) -> module`.
      width: of the published network.
      dense: whether it serves tasks with a label for each pixel.
      whole: whether it serves tasks with one label an image.
      atrous: whether dense towers are those of DeepLab.
    """

    build: Callable[..., nnx.Module]
    width: int = 64
    dense: bool = True
    whole: bool = True
    atrous: bool = False


def segnet(*, dilated: bool, **options: Any) -> SegNet:
    """At full resolution in any case."""
    del dilated
    return SegNet(**options)


ENCODERS: dict[type, dict[str, Any]] = {
    # The first that serves is the default.
    Images: {
        "segnet": Encoder(segnet, whole=False),
        "resnet18": Encoder(partial(ResNet, (2, 2, 2, 2)), dense=False),
        "resnet50": Encoder(partial(ResNet, (3, 4, 6, 3), True), atrous=True),
        "small": Encoder(partial(ResNet, (2, 2, 2)), width=16),  # for a CPU
    },
    Columns: {"mlp": MLP},
    Molecules: {"distance_net": DistanceNet},
}


def outputs_of(task: Task) -> int:
    """The size of the last axis of a task's outputs."""
    if task.kind in ("segmentation", "class"):
        return task.size
    return {"normals": 3, "ordinal": task.size - 1}.get(task.kind, 1)


def encoders_for(dataset: Dataset) -> list[str]:
    """Names of the encoders that serve all tasks of a data set, the default first."""
    table = ENCODERS[type(dataset.inputs)]
    if not isinstance(dataset.inputs, Images):
        return list(table)
    dense = {task.kind in DENSE for task in dataset.tasks}
    return [
        name
        for name, encoder in table.items()
        if (encoder.dense or True not in dense)
        and (encoder.whole or False not in dense)
    ]


class Parts:
    """Makers of new modules for a data set, all from one stream of random numbers.

    Args:
      dataset: whose inputs and tasks they fit.
      encoder: its name.
      width: None takes the published one.
      dtype: of the computation.
      weights: a file for every encoder of images, or for the front of molecules.
      rngs: of all initial values, and of dropout.

    Attributes:
      front: what all tasks share before everything else, or None.
      shape: of the inputs of an encoder, without B.
      features: channels of an encoder's map, or length of its rows.
      read: what gates read of inputs, maps or rows: `[B, ...] -> [B, F]`.
      notes: what was loaded, a sentence each.
    """

    def __init__(
        self,
        dataset: Dataset,
        encoder: str,
        width: int | None,
        dtype: Any,
        weights: Path | str | None,
        rngs: nnx.Rngs,
    ):
        self.tasks = {task.name: task for task in dataset.tasks}
        self.options = {"dtype": dtype, "rngs": rngs}
        self.inputs: Any = dataset.inputs
        self.weights, self.notes = weights, list[str]()
        self.front: Any = None
        if isinstance(self.inputs, Images):
            self.kind: Encoder = ENCODERS[Images][encoder]
            self.width = width or self.kind.width
            self.shape: tuple[int, ...] = tuple(self.inputs)
            self.dense = any(task.kind in DENSE for task in dataset.tasks)
            self.read = thumbnail
            shapes: Any = nnx.eval_shape(lambda: self._image_encoder(rngs=nnx.Rngs(0)))
            self.features = shapes.channels[-1]
        else:
            self.width = width or 128
            self.front = self._front()
            self.shape = (self.front.features,)
            self.features, self.read = self.width // 2, rows

    def _front(self) -> Any:
        """From a table's columns, or a molecule, to rows."""
        if isinstance(self.inputs, Molecules):
            elements = self.inputs.elements
            return self._loaded(DistanceNet(elements, width=self.width, **self.options))
        if self.weights is not None:
            raise ValueError(
                f"build: weights={str(self.weights)!r} are for encoders of images and "
                "molecules; a table's embeddings are of its own columns. Leave it out."
            )
        numbers, categories = self.inputs
        return ColumnEmbedding(numbers, categories, **self.options)

    def encoder(self, **options: Any) -> Any:
        """A whole one, from inputs to a map or rows; options of images replace ours."""
        if isinstance(self.inputs, Images):
            return self._loaded(self._image_encoder(**options))
        return MLP(self.shape[0], (self.width, self.features), **self.options)

    def _image_encoder(self, **options: Any) -> Any:
        usual = {"dilated": self.dense, "num_in": self.inputs.channels}
        return self.kind.build(width=self.width, **usual | self.options | options)

    def _loaded(self, module: Any) -> Any:
        """The module, with the weights where there are any."""
        if self.weights is not None:
            summary = load_weights(module, self.weights, skip=CLASSIFIER)
            self.notes.append(f"{self.weights}: {summary}")
        return module

    def stages(self) -> list[Any]:
        """One in stages, between which something can stand."""
        if isinstance(self.inputs, Images):
            return self.encoder().in_stages()
        return [nnx.Sequential(layer, nnx.relu) for layer in self.encoder().layers]

    def halves(self) -> list[Any]:
        """One in two parts."""
        stages = self.stages()
        middle = (len(stages) + 1) // 2
        return [nnx.Sequential(*stages[:middle]), nnx.Sequential(*stages[middle:])]

    def tower(self, task: str, deep: bool = False) -> Any:
        """A task's decoder; `deep` ones have a layer inside in any case."""
        kind, size = self.tasks[task].kind, outputs_of(self.tasks[task])
        if kind in DENSE:
            between = self.features, size, self.shape[:2]
            if self.kind.atrous:
                return DeepLabHead(*between, width=4 * self.width, **self.options)
            return DenseHead(*between, **self.options)
        layers: list[Any] = [nnx.Linear(self.features, size, **self.options)]
        if deep:
            inside = nnx.Linear(self.features, self.features, **self.options)
            layers = [inside, nnx.relu, *layers]
        return nnx.Sequential(*self._pooled(), *layers)

    def small_tower(self, task: str) -> Any:
        """One layer, with fewer parameters than a deep tower."""
        kind, size = self.tasks[task].kind, outputs_of(self.tasks[task])
        if kind in DENSE:
            conv = nnx.Conv(self.features, size, (1, 1), **self.options)
            return nnx.Sequential(conv, partial(resized, size=self.shape[:2]))
        layer = nnx.Linear(self.features, size, **self.options)
        return nnx.Sequential(*self._pooled(), layer)

    def towers(self, deep: bool = False) -> dict[str, Any]:
        """A decoder for each task."""
        return {task: self.tower(task, deep) for task in self.tasks}

    def map_size(self) -> tuple[int, int]:
        """Height and width of an encoder's map."""
        image = jax.ShapeDtypeStruct((1, *self.shape), jnp.float32)
        seen: Any = nnx.eval_shape(
            lambda x: self._image_encoder(rngs=nnx.Rngs(0))(x), image
        )
        return seen.shape[1:3]

    def gates(self) -> dict[str, Any]:
        """The arguments of mixtures of experts that say what gates read."""
        inputs = jax.ShapeDtypeStruct((1, *self.shape), jnp.float32)
        num_features = jax.eval_shape(self.read, inputs).shape[-1]
        return {
            "num_features": num_features,
            "read": self.read,
            "rngs": self.options["rngs"],
        }

    def _pooled(self) -> list[Any]:
        return [mean_of_map] if isinstance(self.inputs, Images) else []


def mean_of_map(x: jax.Array) -> jax.Array:
    """Rows `[B, C]` from a map `[B, h, w, C]`."""
    return x.mean(axis=(1, 2))


def thumbnail(x: jax.Array) -> jax.Array:
    """An image or map as rows: about the means of 4 × 4 parts of it, of each channel.

    So a gate has 48 weights for each expert on an image of three channels, of any size.
    """
    small = jax.image.resize(x, (x.shape[0], GRID, GRID, x.shape[3]), "linear")
    return small.reshape(x.shape[0], -1)


def rows(x: jax.Array) -> jax.Array:
    """Rows are read as they are."""
    return x
