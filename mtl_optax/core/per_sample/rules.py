"""Where the batch lies in the result of each operation that is linear in its operands.

A rule gets the equation and the `Row` of its operands (None: does not depend on the
cotangent), and returns the axis of the batch in the result with its `inner` size, or
None where the result is a sum over the batch. An operation without a rule is refused.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mtl_optax.core.per_sample.states import Row, mixed, shape_of

Rows = list[Row | None]
Rule = Callable[[Any, Rows, Any], Row | None]


def only_row(rows: Rows) -> Row:
    """Of the one operand that has one."""
    return next(row for row in rows if row is not None)


def elementwise(eqn: Any, rows: Rows, _: Any) -> Row:
    """The same place in all operands, and in the result."""
    found = {row for row in rows if row is not None}
    if len(found) > 1:
        mixed(eqn, "combines values in which the batch lies on different axes")
    return found.pop()


def _transpose(eqn: Any, rows: Rows, _: Any) -> Row:
    row = only_row(rows)
    return Row(eqn.params["permutation"].index(row.axis), row.inner)


def _reshape(eqn: Any, rows: Rows, ctx: Any) -> Row:
    """The batch is the middle one of three sizes, wherever axes begin and end."""
    row, old = only_row(rows), shape_of(eqn.invars[0])
    after = math.prod(old[row.axis + 1 :]) * row.inner
    before = math.prod(old) // (ctx.batch * after)
    new = shape_of(eqn.outvars[0])
    for axis, length in enumerate(new):
        outer, odd = divmod(before, math.prod(new[:axis]))
        inner, left = divmod(after, math.prod(new[axis + 1 :]))
        if not odd and not left and outer * ctx.batch * inner == length:
            return Row(axis, inner)
    return mixed(eqn, "cuts the axis of the batch into parts")


def _broadcast(eqn: Any, rows: Rows, _: Any) -> Row:
    row = only_row(rows)
    return Row(int(eqn.params["broadcast_dimensions"][row.axis]), row.inner)


def _reduce_sum(eqn: Any, rows: Rows, _: Any) -> Row | None:
    row, gone = only_row(rows), eqn.params["axes"]
    if row.axis in gone:
        return None
    return Row(row.axis - sum(axis < row.axis for axis in gone), row.inner)


def _dot_general(eqn: Any, rows: Rows, _: Any) -> Row | None:
    contracted, batch = eqn.params["dimension_numbers"]
    side = 0 if rows[0] is not None else 1
    row = only_row(rows)
    if row.axis in contracted[side]:
        return None
    if row.axis in batch[side]:
        return Row(list(batch[side]).index(row.axis), row.inner)
    free = [
        [
            axis
            for axis in range(len(shape_of(eqn.invars[i])))
            if axis not in (*contracted[i], *batch[i])
        ]
        for i in range(2)
    ]
    before = len(batch[0]) + (len(free[0]) if side else 0)
    return Row(before + free[side].index(row.axis), row.inner)


def _conv(eqn: Any, rows: Rows, _: Any) -> Row | None:
    numbers, row = eqn.params["dimension_numbers"], only_row(rows)
    grouped = eqn.params["batch_group_count"] > 1, eqn.params["feature_group_count"] > 1
    side = 0 if rows[0] is not None else 1
    outer, feature = (numbers.lhs_spec, numbers.rhs_spec)[side][:2]
    if row.axis == feature and not grouped[1]:
        return None
    if row.axis == outer and not grouped[side]:
        if side == 0:
            return Row(numbers.out_spec[0], row.inner)
        if not grouped[0]:
            return Row(numbers.out_spec[1], row.inner)
    return mixed(eqn, "convolves over the axis of the batch")


def _whole(parameter: str, length: Callable[[Any, int], int]) -> Rule:
    """The result has the batch where the operand has it, if it takes all of it."""

    def rule(eqn: Any, rows: Rows, _: Any) -> Row:
        row = only_row(rows)
        operand = eqn.invars[[r is not None for r in rows].index(True)]
        if length(eqn.params[parameter], row.axis) != shape_of(operand)[row.axis]:
            mixed(eqn, "takes a part of the batch")
        return row

    return rule


def _slice(eqn: Any, rows: Rows, _: Any) -> Row:
    row = only_row(rows)
    if shape_of(eqn.outvars[0])[row.axis] != shape_of(eqn.invars[0])[row.axis]:
        mixed(eqn, "takes a part of the batch")
    return row


def _dynamic_update_slice(eqn: Any, rows: Rows, ctx: Any) -> Row:
    row = elementwise(eqn, rows[:2], ctx)
    if shape_of(eqn.invars[0])[row.axis] != shape_of(eqn.invars[1])[row.axis]:
        mixed(eqn, "writes into a part of the batch")
    return row


def _pad(eqn: Any, rows: Rows, ctx: Any) -> Row:
    row = elementwise(eqn, rows, ctx)
    if tuple(eqn.params["padding_config"][row.axis]) != (0, 0, 0):
        mixed(eqn, "pads the batch")
    return row


def _not_along(parameter: str) -> Rule:
    """Elementwise but for one axis, or some, which must not be that of the batch."""

    def rule(eqn: Any, rows: Rows, ctx: Any) -> Row:
        row, along = elementwise(eqn, rows, ctx), eqn.params[parameter]
        if row.axis in (along if isinstance(along, tuple | list) else (along,)):
            mixed(eqn, "runs along the batch")
        return row

    return rule


def _stack(eqn: Any, rows: Rows, ctx: Any) -> Row:
    """A new axis, before or behind that of the batch."""
    row = elementwise(eqn, rows, ctx)
    return Row(row.axis + (eqn.params["axis"] <= row.axis), row.inner)


def _unstack(eqn: Any, rows: Rows, _: Any) -> Row:
    row, gone = only_row(rows), eqn.params["axis"]
    if row.axis == gone:
        mixed(eqn, "runs along the batch")
    return Row(row.axis - (gone < row.axis), row.inner)


def _window(eqn: Any, rows: Rows, ctx: Any) -> Row:
    """A pooling whose windows hold one sample each."""
    row, params = only_row(rows), eqn.params
    plain = (
        params["window_dimensions"][row.axis],
        params["window_strides"][row.axis],
        *params["padding"][row.axis],
        *(
            params.get(d, (1,) * 99)[row.axis]
            for d in ("base_dilation", "window_dilation")
        ),
    )
    if plain != (1, 1, 0, 0, 1, 1):
        mixed(eqn, "pools over the batch")
    return row


def _gather(eqn: Any, rows: Rows, _: Any) -> Row:
    if rows[0] is None:
        mixed(eqn, "takes its indices from the cotangent")
    row, numbers = rows[0], eqn.params["dimension_numbers"]
    offset, shape = numbers.offset_dims, shape_of(eqn.invars[0])
    batching = tuple(numbers.operand_batching_dims)
    if row.axis in batching:
        place = numbers.start_indices_batching_dims[batching.index(row.axis)]
        rest = [d for d in range(len(shape_of(eqn.outvars[0]))) if d not in offset]
        return Row(rest[place], row.inner)
    kept = [
        d
        for d in range(len(shape))
        if d not in batching and d not in numbers.collapsed_slice_dims
    ]
    indexed = row.axis in numbers.start_index_map or row.axis not in kept
    if indexed or eqn.params["slice_sizes"][row.axis] != shape[row.axis]:
        mixed(eqn, "picks samples of the batch by their number")
    return Row(offset[kept.index(row.axis)], row.inner)


def _scatter_add(eqn: Any, rows: Rows, ctx: Any) -> Row | None:
    if rows[0] is not None or rows[2] is None:
        mixed(eqn, "adds into a value that depends on the cotangent")
    row, numbers = rows[2], eqn.params["dimension_numbers"]
    operand, updates = shape_of(eqn.invars[0]), shape_of(eqn.invars[2])
    window = list(numbers.update_window_dims)
    if row.axis in window:
        gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
        kept = [d for d in range(len(operand)) if d not in gone]
        place = kept[window.index(row.axis)]
        indexed = place in numbers.scatter_dims_to_operand_dims
        if indexed or operand[place] != updates[row.axis]:
            mixed(eqn, "writes samples of the batch by their number")
        return Row(place, row.inner)
    rest = [d for d in range(len(updates)) if d not in window]
    among = rest.index(row.axis)
    batching = list(numbers.scatter_indices_batching_dims)
    if among in batching:
        place = numbers.operand_batching_dims[batching.index(among)]
        return Row(place, row.inner)
    for column, place in enumerate(numbers.scatter_dims_to_operand_dims):
        if operand[place] == updates[row.axis] and _counts(
            ctx.column(eqn.invars[1], column), among
        ):
            return Row(place, row.inner)
    return None


def _counts(index: np.ndarray[Any, Any] | None, axis: int) -> bool:
    """Whether each sample's index is its own number, as in `x[jnp.arange(B), y]`."""
    if index is None:
        return False
    lead = [1] * index.ndim
    lead[axis] = -1
    return bool((index == np.arange(index.shape[axis]).reshape(lead)).all())


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "add",
            "add_any",
            "convert_element_type",
            "copy",
            "copy_p",
            "div",
            "mul",
            "neg",
            "pcast",
            "pvary",
            "reduce_precision",
            "select_n",
            "sharding_constraint",
            "sub",
        ),
        elementwise,
    ),
    "broadcast_in_dim": _broadcast,
    "concatenate": _not_along("dimension"),
    "conv_general_dilated": _conv,
    "cumsum": _not_along("axis"),
    "dot_general": _dot_general,
    "dynamic_slice": _whole("slice_sizes", lambda sizes, axis: sizes[axis]),
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "pad": _pad,
    "reduce_sum": _reduce_sum,
    "reduce_window_sum": _window,
    "reshape": _reshape,
    "rev": _not_along("dimensions"),
    "scatter-add": _scatter_add,
    "select_and_scatter_add": _window,
    "slice": _slice,
    "split": _not_along("axis"),
    "squeeze": _reshape,
    "stack": _stack,
    "transpose": _transpose,
    "unstack": _unstack,
}

# Operands in which an operation is linear together; all other ones must be still. The
# rest of these must be zero where one of them depends on the cotangent.
TOGETHER: dict[str, Callable[[int], tuple[int, ...]]] = {
    "select_n": lambda n: tuple(range(1, n)),
    "gather": lambda n: (0,),
    "scatter-add": lambda n: (0, 2),
    "dynamic_slice": lambda n: (0,),
    "dynamic_update_slice": lambda n: (0, 1),
    "select_and_scatter_add": lambda n: (0,),
}
# Linear in either operand while the other is still; in the first one only.
EITHER = {"mul", "dot_general", "conv_general_dilated"}
FIRST = {"div"}
