"""A network whose shared convolutions are each normalised for each task apart."""

from functools import partial
from typing import Any

import jax
from flax import nnx

from mtl_optax.nn import TaskBatchNorm
from mtl_optax.study.blocks import CHANNELS, Conv, pool
from mtl_optax.study.data import CANVAS

LAYERS = ("first", "second")


class ChannelCNN(nnx.Module):
    """Two shared convolutions, each normalised and pooled a task, and a head a task."""

    def __init__(self, classes: dict[str, int], *, rngs: nnx.Rngs):
        self.tasks = tuple(classes)  # in this order, which nnx.Dict does not keep
        # Without momentum the running statistics are those of the last batch.
        norm = partial(TaskBatchNorm, len(classes), CHANNELS, momentum=0.0, rngs=rngs)
        linear = partial(nnx.Linear, kernel_init=nnx.initializers.he_normal())
        size = (CANVAS // 4) ** 2 * CHANNELS
        self.first, self.first_norm = Conv(1, CHANNELS, rngs=rngs), norm()
        self.second, self.second_norm = Conv(CHANNELS, CHANNELS, rngs=rngs), norm()
        self.heads = nnx.Dict(
            {task: linear(size, count, rngs=rngs) for task, count in classes.items()}
        )

    def __call__(self, images: Any, running: bool = False) -> list[jax.Array]:
        """Logits of each task for images `[B, 144]`."""
        shared = self.first(images.reshape(-1, CANVAS, CANVAS, 1))
        options, answers = {"use_running_average": running}, []
        for t, task in enumerate(self.tasks):
            own = pool(nnx.relu(self.first_norm(shared, task=t, **options)))
            own = self.second(own)
            own = pool(nnx.relu(self.second_norm(own, task=t, **options)))
            answers.append(self.heads[task](own.reshape(len(images), -1)))
        return answers

    def strengths(self) -> list[jax.Array]:
        """Connection strengths `[T, C]` of LAYERS, with the last batch's variances."""
        return [
            getattr(self, f"{layer}_norm").connection_strength(
                getattr(self, layer).linear.kernel[...]
            )
            for layer in LAYERS
        ]


def owners_by_name(tasks: tuple[str, ...], params: Any) -> Any:
    """The task of each head and each normalisation, None in the convolutions."""
    places = {f"['heads']['{task}']": t for t, task in enumerate(tasks)}
    for layer in LAYERS:
        places |= {f"['{layer}_norm']['norms'][{t}]": t for t in range(len(tasks))}

    def owner(path: Any, _: Any) -> int | None:
        name = jax.tree_util.keystr(path)
        return next((t for at, t in places.items() if name.startswith(at)), None)

    return jax.tree_util.tree_map_with_path(owner, params)
