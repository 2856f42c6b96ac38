"""Weights of a module from and to safetensors files, under PyTorch's names and layout.

Every attribute on the way to a layer is a part of its name there, as in PyTorch:
`layer1[0].conv1.kernel` of :class:`ResNet` is `layer1.0.conv1.weight`. Needs the
package safetensors, which comes with `mtl-optax[train]`.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

IGNORED = "num_batches_tracked"  # a count that PyTorch keeps and nothing here reads
NAMED = 8  # how many names a message shows of a kind


class Loaded(NamedTuple):
    """What `load_weights` did.

    Fields:
      loaded: names, as in PyTorch, of what was read into the module.
      left: names in the file that were skipped.
      kept: names in the module that were skipped, and are as they were.
      converted: how many arrays had another dtype than the module's, by dtype.
    """

    loaded: tuple[str, ...]
    left: tuple[str, ...]
    kept: tuple[str, ...]
    converted: dict[str, int]

    def __str__(self) -> str:
        """One sentence."""
        dtypes = "".join(f", {n} of them from {d}" for d, n in self.converted.items())
        return (
            f"{len(self.loaded)} arrays loaded{dtypes}; {len(self.left)} of the file "
            f"left, {len(self.kept)} of the module kept."
        )


def load_weights(
    module: nnx.Module,
    path: Path | str,
    *,
    rename: Callable[[str], str] | None = None,
    prefix: str = "",
    skip: Sequence[str] = (),
) -> Loaded:
    """Reads a safetensors file of PyTorch weights into a module; all of it, or nothing.

    Kernels of convolutions are turned from OIHW to HWIO, those of dense layers are
    transposed, normalisations have `weight`, `bias`, `running_mean` and `running_var`.
    Values take the dtype of the module's parameters. `num_batches_tracked` is ignored.

    Args:
      module: any; its parameters and running statistics are overwritten.
      path: of the file. Nothing is downloaded.
      rename: from a name in the file, without the prefix, to the one looked for.
      prefix: only names of the file that begin so are read, without it.
      skip: beginnings of names that are neither read from the file nor asked for by
        the module, such as "fc." for a classifier of other classes.

    Returns:
      What was loaded, left and kept; `print` it.

    Raises:
      ValueError: where the file is truncated or no safetensors file; where a name of
        the file is unknown to the module, or the reverse; for a shape that does not
        fit; for numbers that are no floats, or not finite. All faults at once, before
        anything is written.

    Cost: the file is read once, and held twice.

    When not to use it: for checkpoints of a run, which Orbax keeps with optimiser and
    step. For weights in Flax's own layout.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from flax import nnx
      >>> from mtl_optax.nn import ResNet, load_weights, save_weights
      >>> first, second = (ResNet((1,), width=2, rngs=nnx.Rngs(s)) for s in (0, 1))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder) / "resnet.safetensors"
      ...     save_weights(first, path)
      ...     print(load_weights(second, path))
      15 arrays loaded; 0 of the file left, 0 of the module kept.
      >>> bool((first.conv1.kernel[...] == second.conv1.kernel[...]).all())
      True
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"load_weights: there is no file {path}. Nothing is downloaded here: give "
            "the path of a .safetensors file."
        )
    wanted = slots(module)
    try:
        with safe_open(path, "numpy") as file:
            new, left, faults = fitting(file, wanted, rename or str, prefix, skip)
    except SafetensorError as error:
        raise ValueError(no_safetensors(path, str(error))) from error
    if faults:
        raise ValueError(do_not_fit(path, type(module).__name__, faults))
    flat = [(wanted[name].path, wanted[name].filled(new[name])) for name in new]
    nnx.update(module, nnx.from_flat_state(flat))
    kept = tuple(name for name in wanted if name not in new)
    converted = Counter(
        str(value.dtype)
        for name, value in new.items()
        if value.dtype != wanted[name].variable[...].dtype
    )
    return Loaded(tuple(new), tuple(left), kept, dict(converted))


def save_weights(module: nnx.Module, path: Path | str) -> None:
    """Writes a module's parameters and running statistics as PyTorch would have them.

    The file appears when it is complete; one of that name is replaced. In PyTorch,
    `model.load_state_dict(safetensors.torch.load_file(path))` reads it.

    Args:
      module: any.
      path: of the file, mostly `NAME.safetensors`.

    When not to use it: to go on training later: the optimiser's state is not in it.

    Example: see :func:`load_weights`.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    arrays = {name: slot.to_torch() for name, slot in slots(module).items()}
    part = path.with_name(path.name + ".part")
    save_file(arrays, part)
    os.replace(part, path)


class Slot(NamedTuple):
    """A variable of a module, and how PyTorch lays it out."""

    path: tuple[Any, ...]
    variable: Any
    layer: type

    @property
    def name(self) -> str:
        """In PyTorch."""
        last = self.path[-1]
        if issubclass(self.layer, nnx.BatchNorm):
            last = {"mean": "running_mean", "var": "running_var"}.get(last, last)
        last = {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(
            last, last
        )
        return ".".join(map(str, (*self.path[:-1], last)))

    def to_torch(self) -> np.ndarray:
        """The value in PyTorch's layout."""
        value = self._turned(np.asarray(self.variable[...]))
        return np.ascontiguousarray(value.transpose(self._axes(value.ndim)))

    def filled(self, value: np.ndarray) -> Any:
        """The variable with a value in PyTorch's layout, in its own dtype."""
        value = self._turned(value.transpose(np.argsort(self._axes(value.ndim))))
        return self.variable.replace(jnp.asarray(value, self.variable[...].dtype))

    def fault(self, value: np.ndarray) -> str:
        """What is wrong with a value for this slot; nothing where it fits."""
        shape = self.variable[...].shape
        wanted = tuple(shape[axis] for axis in self._axes(len(shape)))
        if value.shape != wanted:
            return f"has shape {value.shape}, and the module asks for {wanted}"
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return f"has dtype {value.dtype}, and the module asks for floats"
        with np.errstate(over="ignore"):
            finite = np.isfinite(value.astype(self.variable[...].dtype)).all()
        return "" if finite else "has values that are not finite"

    def _axes(self, ndim: int) -> tuple[int, ...]:
        """Flax's axes in PyTorch's order: outputs, inputs, space."""
        before, after = ndim - 2, ndim - 1
        if self.path[-1] != "kernel":
            return tuple(range(ndim))
        if issubclass(self.layer, nnx.ConvTranspose):
            return (before, after, *range(before))
        if issubclass(self.layer, (nnx.Linear, nnx.Conv)):
            return (after, before, *range(before))
        return tuple(range(ndim))

    def _turned(self, value: np.ndarray) -> np.ndarray:
        """With space reversed in both directions, where one flips it and one not."""
        is_turned = self.path[-1] == "kernel" and issubclass(
            self.layer, nnx.ConvTranspose
        )
        return np.flip(value, tuple(range(value.ndim - 2))) if is_turned else value


def slots(module: nnx.Module) -> dict[str, Slot]:
    """All parameters and running statistics by their names in PyTorch."""
    layers = {path: type(layer) for path, layer in nnx.iter_modules(module)}
    kinds = nnx.Any(nnx.Param, nnx.BatchStat)
    found = [
        Slot(path, variable, layers[path[:-1]])
        for path, variable in nnx.to_flat_state(nnx.state(module, kinds))
    ]
    return {slot.name: slot for slot in found}


def fitting(
    file: Any,
    wanted: dict[str, Slot],
    rename: Callable[[str], str],
    prefix: str,
    skip: Sequence[str],
) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Values by the module's names, what of the file is left, and what does not fit."""
    new, left, faults = {}, [], []
    missing = {name for name in wanted if not begins(name, skip)}
    for name in sorted(file.keys()):
        ours = rename(name.removeprefix(prefix))
        if not name.startswith(prefix) or begins(ours, skip):
            left.append(name)
        elif ours in wanted:
            value = file.get_tensor(name)
            if ours in new:
                faults.append(f"{ours} comes twice, the second time as {name}")
            elif fault := wanted[ours].fault(value):
                faults.append(f"{name} {fault}")
            new[ours] = value
            missing.discard(ours)
        elif not ours.endswith(IGNORED):
            faults.append(f"the module has no {ours}")
    faults += [f"the file has no {prefix}{name}" for name in sorted(missing)]
    return new, left, faults


def begins(name: str, beginnings: Iterable[str]) -> bool:
    """Whether a name begins with any of them."""
    return any(name.startswith(beginning) for beginning in beginnings)


def no_safetensors(path: Path, error: str) -> str:
    """The message for a file that cannot be read."""
    with path.open("rb") as file:
        is_torch = file.read(2) in (b"PK", b"\x80\x02")
    if is_torch:
        return (
            f"load_weights: {path} is a PyTorch pickle, which may run code. Convert it "
            "where you trust it: safetensors.torch.save_file(torch.load(path, "
            'weights_only=True), "NAME.safetensors").'
        )
    return (
        f"load_weights: {path} is no complete safetensors file ({error}). Its size is "
        f"{path.stat().st_size} bytes; copy it again."
    )


def do_not_fit(path: Path, module: str, faults: Sequence[str]) -> str:
    """The message for a file of another module."""
    shown = "; ".join(faults[:NAMED])
    more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    return (
        f"load_weights: {path} does not fit this {module}, and nothing was loaded: "
        f"{shown}{more}. Where the file is of a larger model, give prefix= or rename=; "
        "what should be left as it is, skip=."
    )
