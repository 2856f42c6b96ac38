"""MT-SAC of metaworld-algorithms, run from a checkout of its source.

Its networks, configuration and `update` are called as they are, on random transitions;
of its environments only the spaces are needed, so a simulator need not be there.
"""

import ast
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import numpy as np

import mtl_optax as mtl
from benchmarks.rl_update import ACTION, OBS, PEER, Size

PACKAGES = ("flax", "distrax", "gymnasium", "jaxtyping")
RECIPES = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"
TITLE = "## In place of a PCGrad of stacked gradients"
SUM, MEAN = "peer: summed loss", "peer: its mean of task gradients"
WITH_OURS = "peer: mtl.pcgrad in its place"
SHARED = "peer: mtl.pcgrad on shared leaves"


def environment(path: Path) -> dict[str, Any]:
    """Versions of what it stands on, and its commit."""
    asked = ["git", "-C", f"{path}", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    versions = {name: version(name) for name in PACKAGES}
    versions["metaworld-algorithms"] = commit.strip() or "unknown"
    return {"peers": {"versions": versions}}


def found_at(path: Path) -> None:
    """Makes it importable, without a simulator if there is none."""
    if not (path / "metaworld_algorithms").is_dir():
        raise ValueError(
            f"--peer {path}: no folder metaworld_algorithms there; give the root of a "
            "checkout of rainx0r/metaworld-algorithms."
        )
    sys.path.insert(0, str(path))
    try:
        import metaworld  # noqa: F401
    except ImportError:
        simulator, part = ModuleType("metaworld"), ModuleType("metaworld.evaluation")
        vars(part).update(evaluation=None, metalearning_evaluation=None)
        sys.modules |= {"metaworld": simulator, "metaworld.evaluation": part}


def recipe() -> dict[str, Any]:
    """What the recipe defines, run with theirs in place of its stand-in."""
    text = RECIPES.read_text().partition(TITLE)[2]
    code = ast.parse(text.partition("```python\n")[2].partition("```")[0])
    theirs = ast.parse("from metaworld_algorithms.config.optim import OptimizerConfig")
    places = [i for i, x in enumerate(code.body) if _named(x) == "OptimizerConfig"]
    code.body[places[0] : places[0] + 1] = theirs.body
    made = {"__name__": "recipe"}
    sys.modules["recipe"] = ModuleType("recipe")  # where dataclasses look
    exec(compile(code, str(RECIPES), "exec"), made)
    return made


def _named(statement: ast.stmt) -> str | None:
    return getattr(statement, "name", None)


def data_of(size: Size) -> Any:
    """The same numbers as ours; a row of each task in turn, one-hot behind."""
    from metaworld_algorithms.types import ReplayBufferSamples

    batch, tasks = size.batch(), np.eye(size.num_tasks, dtype=np.float32)
    ids = np.broadcast_to(tasks[:, None], (*batch.reward.shape, size.num_tasks))

    def rows(x: Any) -> Any:
        return np.asarray(x).swapaxes(0, 1).reshape(size.num_tasks * size.rows, -1)

    def observed(x: Any) -> Any:
        return rows(np.concatenate([x, ids], -1))

    return ReplayBufferSamples(
        observations=observed(batch.obs),
        actions=rows(batch.action),
        next_observations=observed(batch.next_obs),
        dones=rows(batch.terminated),
        rewards=rows(batch.reward),
    )


class Update:
    """Its own `update`, as it is."""

    def __init__(self, optimiser: Any, size: Size):
        self.data, self.agent = data_of(size), agent(optimiser, size)
        step = type(self.agent)._update_inner
        started = time.perf_counter()
        step.lower(self.agent, self.data).compile()
        self.seconds = time.perf_counter() - started
        self()
        self()  # the state's dtypes are settled after the first
        self.program = step.lower(self.agent, self.data).compile()

    def __call__(self) -> None:
        self.agent, logs = self.agent.update(self.data)
        jax.block_until_ready((self.agent, logs))


def agent(optimiser: Any, size: Size) -> Any:
    """MT-SAC with multi-head networks and this optimiser for critic and actor."""
    import gymnasium as gym
    from metaworld_algorithms.config.networks import (
        ContinuousActionPolicyConfig,
        QValueFunctionConfig,
    )
    from metaworld_algorithms.config.nn import MultiHeadConfig
    from metaworld_algorithms.rl.algorithms.mtsac import MTSAC, MTSACConfig

    (width,) = set(size.hidden)
    network = MultiHeadConfig(
        num_tasks=size.num_tasks,
        width=width,
        depth=len(size.hidden),
        optimizer=optimiser,
    )
    spaces = SimpleNamespace(
        action_space=gym.spaces.Box(-1, 1, (ACTION,)),
        observation_space=gym.spaces.Box(-1, 1, (OBS + size.num_tasks,)),
    )
    config = MTSACConfig(
        num_tasks=size.num_tasks,
        actor_config=ContinuousActionPolicyConfig(network_config=network),
        critic_config=QValueFunctionConfig(network_config=network),
    )
    return MTSAC.initialize(config, spaces, 1)


def updates(path: Path, size: Size) -> dict[str, Any]:
    """Its ways, and ours in its place."""
    found_at(path)
    from metaworld_algorithms.config.optim import (
        DummyMultiTaskConfig,
        OptimizerConfig,
        PCGradConfig,
    )

    ours, num_tasks = recipe(), size.num_tasks
    pcgrad = mtl.pcgrad(num_tasks=num_tasks, key=0, reduction="mean")
    shared = mtl.on_shared(pcgrad, ours["shared"])
    optimisers = {
        SUM: OptimizerConfig(max_grad_norm=1.0),
        MEAN: DummyMultiTaskConfig(max_grad_norm=1.0),
        PEER: PCGradConfig(num_tasks=num_tasks, max_grad_norm=1.0),
        WITH_OURS: ours["MethodConfig"](method=pcgrad, max_grad_norm=1.0),
        SHARED: ours["MethodConfig"](method=shared, max_grad_norm=1.0),
    }
    return {name: Update(optimiser, size) for name, optimiser in optimisers.items()}
