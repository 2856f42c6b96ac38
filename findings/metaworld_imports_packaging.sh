#!/usr/bin/env bash
# Meta-World does not import as installed: gymnasium asks for `packaging`.
#
# Package: metaworld 3.1.1, gymnasium 1.4.0 (mujoco 3.3.0).
# Expected: `pip install metaworld` and `import metaworld`.
# Seen: ModuleNotFoundError: No module named 'packaging', from
#   gymnasium/envs/mujoco/mujoco_rendering.py. gymnasium declares it in its own extra
#   `mujoco` alone, for which metaworld does not ask. In an environment with pytest or
#   jupyter it is there by chance.
# What it did here: the extra `rl` lists packaging.
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
pip() { "$work/env/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install --quiet metaworld==3.1.1 gymnasium==1.4.0 mujoco==3.3.0 numpy==2.4.1
said=$("$work/env/bin/python" -c 'import metaworld' 2>&1 | tail -n 1 || true)
echo "as installed: $said"
[ "$said" = "ModuleNotFoundError: No module named 'packaging'" ]
pip install --quiet packaging==25.0
"$work/env/bin/python" -c 'import metaworld; print("with packaging: it imports")'
