"""Which form is cheaper for one leaf: rows, or its gradients themselves.

Multiplications for Gramian and weighted sum, of e products side by side, of X [R, m]
and D [T, R, n]:

    rows      K_ts = <D_t, (X X') D_s>      e (R^2 (m + T n) + T^2 R n + R m n)
    direct    G_t = X' D_t, K = G G'        e (T R m n + T^2 m n)

So rows pay where there are fewer of them (batch times positions) than the layer has
inputs, roughly. The cotangents' own Gramian, (X X') o (D_t D_s'), would cost T^2 R^2 n.
"""

from typing import Any, NamedTuple

FORMS = ("auto", "rows", "direct")


class Sizes(NamedTuple):
    """Of the products that give one leaf's gradients."""

    e: int  # products side by side
    tasks: int
    rows: int  # that each sums over
    inputs: int
    outputs: int

    def by_rows(self, devices: int = 1) -> int:
        """Multiplications of the row form; each device takes its rows among all."""
        among = self.rows * devices * (self.inputs + self.tasks * self.outputs)
        pairs = self.tasks**2 * self.outputs
        return self.e * self.rows * (among + pairs + self.inputs * self.outputs)

    def direct(self) -> int:
        """Multiplications by way of the gradients."""
        one = self.tasks * (self.rows + self.tasks)
        return self.e * self.inputs * self.outputs * one


class Rule(NamedTuple):
    """How forms are chosen."""

    form: str = "auto"
    axis_name: Any = None  # gradients are means over it
    devices: int = 1  # on it

    def rows_pay(self, sizes: Sizes) -> bool:
        """Whether to take the row form, as asked or by cost."""
        if self.form == "auto":
            if not all(isinstance(size, int) for size in sizes):
                return False  # symbolic sizes, of jax.export, cannot be compared
            return sizes.by_rows(self.devices) < sizes.direct()
        return self.form == "rows"

    def lookups_pay(self, lookups: Any, num_rows: int) -> bool:
        """Whether to keep rows that are added into a table in place of the table."""
        if self.axis_name is not None or self.form == "direct":
            return False
        if not isinstance(lookups, int):
            return False
        return lookups < num_rows or self.form == "rows"
