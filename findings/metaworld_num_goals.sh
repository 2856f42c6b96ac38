#!/usr/bin/env bash
# Meta-World: num_goals=1 of one environment is that of all that are made after it.
#
# Package: metaworld 3.1.1 (gymnasium 1.4.0, mujoco 3.3.0).
# Expected: gym.make("Meta-World/MT1", ..., num_goals=1) has one goal; an environment made
#   after it without num_goals has the documented 50.
# Seen: that one has one goal too: the argument is written to the module's `_N_GOALS`.
# What it did here: `make_envs` of mtl_optax.rl.metaworld has no num_goals.
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check metaworld==3.1.1 \
    gymnasium==1.4.0 mujoco==3.3.0 numpy==2.4.1 packaging==25.0
"$work/env/bin/python" - <<'EOF'
import gymnasium
import metaworld  # noqa: F401


def goals(**options):
    env = gymnasium.make("Meta-World/MT1", env_name="reach-v3", seed=1, **options)
    return len(env.get_wrapper_attr("tasks"))


found = [goals(), goals(num_goals=1), goals()]
print("goals of an environment; with num_goals=1; of one made after it:", *found)
assert found == [50, 1, 1], "changed: see above"
EOF
