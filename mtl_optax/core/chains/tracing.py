"""A watcher that lets everything happen, and remembers where it came by."""

import dataclasses
import pathlib
import sys
from types import CodeType, FrameType
from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments.names import UnknownNames
from mtl_optax.core.chains import supplies
from mtl_optax.core.chains.places import METHOD

# Parts of optax that hand on what they get, so that they are nobody's fault.
_HAND_ON = {
    "chain",
    "named_chain",
    "with_extra_args_support",
    "partition",
    "inject_stateful_hyperparams",
    "masked",
    "process",
    "identity",
}
_HERE = str(pathlib.Path(__file__).parent)
_PACKAGE = str(pathlib.Path(__file__).parents[2])


@dataclasses.dataclass(eq=False)
class Tracing:
    """What came by. Missing extra arguments of our methods are made up."""

    num_tasks: int
    gradients: Any  # as they go into the chain, shapes
    names: set[str] = dataclasses.field(default_factory=set)
    around: list[FrameType] = dataclasses.field(default_factory=list)
    methods: int = 0  # that gave an update
    reshaped: bool = False  # whether a method got other shapes than the chain did
    second: bool = False  # whether one got what another one gave
    params_dropped: bool = False  # whether one got no parameters

    def visit(
        self, kind: str, update: Any, updates: Any, state: Any, params: Any, extra: Any
    ) -> tuple[Any, Any]:
        """Does it."""
        self.around += frames_of_parts(sys._getframe())
        self.params_dropped |= params is None
        given, came = _shapes(self.gradients), _shapes(updates)
        self.reshaped |= not self.methods and not came <= given
        rows = {shape[1:] for shape in given}
        self.second |= self.methods > 0 and came <= rows and not came <= given

        def run() -> tuple[Any, Any]:
            about = self.num_tasks, self.names
            known = supplies.for_part(kind, update, extra, *about)
            return update(updates, state, params, **known)

        try:
            found = run()
        except UnknownNames as error:
            new = supplies.unknown_names(error, self.num_tasks) - self.names
            if not new or extra.get("losses") is not None:
                raise
            self.names |= new
            found = run()
        self.methods += kind == METHOD
        return found

    def look_inside(self, *_: Any) -> None:
        """Nothing to add: what is inside is visited too."""


def frames_of_parts(frame: FrameType | None) -> list[FrameType]:
    """The frames, outwards, that are updates of transformations of others."""
    found = []
    while frame is not None:
        if part_of(frame.f_code) is not None:
            found.append(frame)
        frame = frame.f_back
    return found


def part_of(code: CodeType) -> str | None:
    """The factory of the transformation whose update this is; None if it is none."""
    arguments = code.co_varnames[: code.co_argcount]
    if "state" not in arguments or not {"updates", "grads"} & {*arguments}:
        return None
    factory = code.co_qualname.split(".")[0]
    ours = code.co_filename.startswith(_PACKAGE)
    return None if ours or factory in _HAND_ON else factory


def is_ours(code: CodeType) -> bool:
    """Whether it is of this library, but for what looks at chains."""
    name = code.co_filename
    return name.startswith(_PACKAGE) and not name.startswith(_HERE)


def plain(updates: Any) -> Any:
    """As a tree, also if they came through the door of task gradients before."""
    found = updates.as_updates() if hasattr(updates, "as_updates") else updates
    return found.tree() if hasattr(found, "tree") else found


def _shapes(updates: Any) -> set[tuple[int, ...]]:
    updates = plain(updates)
    if hasattr(updates, "num_tasks"):  # lazy ones, which are no tree
        rows = jax.tree.leaves(updates.like())
        return {(updates.num_tasks, *row.shape) for row in rows}
    return {jnp.shape(leaf) for leaf in jax.tree.leaves(updates)}
