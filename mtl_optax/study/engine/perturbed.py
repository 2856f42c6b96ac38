"""Methods of a study that take gradients at perturbed parameters, for flat minima."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

import mtl_optax as mtl
from mtl_optax.study.engine.transformations import Ingredients, among_tasks, keyed


def flattened(
    factory: Callable[..., Any],
) -> Callable[..., optax.GradientTransformation]:
    """F- and the method: radius 0.05 is the default of the authors' Multi-MNIST."""

    def method(of: Ingredients, rho_shared: Any = 0.05) -> optax.GradientTransformation:
        aggregator = keyed(factory, of.key)(of.num_tasks)
        shared = of.problem.shared
        rule = mtl.flat_mtl(aggregator, rho_shared=rho_shared, shared=shared)
        return optax.chain(rule, of.optimizer)

    return method


def lightly_flattened(
    factory: Callable[..., Any],
) -> Callable[..., optax.GradientTransformation]:
    """SAMO and the method, whose key is not that of SAMO's draws."""

    def method(
        of: Ingredients, rho_shared: Any = 0.05, beta: Any = 0.1
    ) -> optax.GradientTransformation:
        aggregator = keyed(factory, of.key)(of.num_tasks)
        rule = mtl.samo(
            aggregator,
            key=jax.random.fold_in(of.key, 1),
            rho=rho_shared,
            beta=beta,
            shared=of.problem.shared,
        )
        return optax.chain(rule, of.optimizer)

    return method


def sam(of: Ingredients, rho_shared: Any = 0.05) -> optax.GradientTransformation:
    """One perturbation, along the gradient of the sum, for all tasks: the control."""
    uphill = optax.chain(optax.contrib.normalize(), optax.sgd(rho_shared))
    inner = optax.contrib.sam(of.optimizer, uphill, opaque_mode=True)

    def update(
        updates: Any, state: Any, params: Any = None, *, losses_fn: Any, **extra: Any
    ) -> tuple[Any, Any]:
        del extra  # optax's sam takes no other than grad_fn, with the step's number

        def total(params: Any, _: Any) -> Any:
            losses = losses_fn(params)
            return sum(losses.values() if isinstance(losses, Mapping) else losses)

        grad_fn = jax.grad(total)
        return inner.update(updates, state, params, grad_fn=grad_fn)

    ascent = optax.GradientTransformationExtraArgs(inner.init, update)
    return optax.chain(among_tasks(mtl.unitary(of.num_tasks), of.problem), ascent)
