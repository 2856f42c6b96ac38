"""The critics' step of MT-SAC by the form of task gradients; part of `rl_update.py`.

Each task has rows of its own, which go through the networks together.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import mtl_optax as mtl
from benchmarks import rl_update, timing

PLAIN = "gradient of the summed loss"


def _by_name(losses_fn: Callable[[Any], jax.Array]) -> Callable[[Any], Any]:
    return lambda params: dict(enumerate(losses_fn(params)))


FORMS: dict[str, Callable[[Any, Any], Any]] = {
    PLAIN: lambda losses, params: jax.grad(lambda p: losses(p).sum())(params),
    "per_sample_grads": lambda losses, params: mtl.per_sample_grads(losses)(params)[1],
    "lazy_task_grads": lambda losses, params: mtl.lazy_task_grads(_by_name(losses))(
        params
    )[1],
    "task_grads": lambda losses, params: mtl.task_grads(_by_name(losses))(params)[1],
}


class Step:
    """A compiled step of CAGrad, clip and Adam; the plain one has no method."""

    def __init__(self, name: str, size: rl_update.Size):
        agent = rl_update.agent("cagrad", size)
        rest = rl_update.behind()
        shared = rl_update.twin(size.networks[1]).shared
        method = mtl.on_shared(rl_update.METHODS["cagrad"](size.num_tasks), shared)
        tx = rest if name == PLAIN else optax.chain(method, rest)
        self.held = agent.init(jax.random.key(0))
        self.inputs = size.batch(), jax.random.key(1)
        self.params = jax.tree.map(jnp.copy, self.held.critic)
        self.state = tx.init(self.params)

        def step(params: Any, state: Any, held: Any, *inputs: Any) -> Any:
            grads = FORMS[name](agent.critic_losses(held, *inputs), params)
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        jitted = jax.jit(step, donate_argnums=(0, 1))
        self.program = jitted.lower(*self._all()).compile()

    def _all(self) -> tuple[Any, ...]:
        return self.params, self.state, self.held, *self.inputs

    def __call__(self) -> None:
        self.params, self.state = self.program(*self._all())
        jax.block_until_ready((self.params, self.state))


def measure(size: rl_update.Size, rounds: int) -> dict[str, Any]:
    """Times, FLOPs and temporaries by form."""
    steps = {name: Step(name, size) for name in FORMS}
    before = timing.load_average()
    samples = timing.interleave(dict(steps), rounds, warmup=2)
    results = timing.summarise(samples, PLAIN)
    for name, step in steps.items():
        results[name] |= rl_update.needs(step.program)
    load = [before, timing.load_average()]
    return {"rounds": rounds, "load_average": load, "results": results}
