#!/usr/bin/env bash
# grain: beside JAX, worker processes need absl's flags parsed, as only absl's apps do.
#
# Package: grain 0.2.18, absl-py 2.5.1, jax 0.10.2.
# Expected: `mp_prefetch` works in a plain script, notebook or test, as threads do.
# Seen: the first element raises UnparsedFlagAccessError about the flag
#   grain_enable_multiprocess_worker_profiling, which no user set. It does so wherever
#   JAX is installed, and works without JAX. After
#   `absl.flags.FLAGS.mark_as_parsed()` the same lines work.
# What it did here: mtl_optax/data/loading.py marks the flags as parsed where no program
#   has parsed any; a test reads with two workers.
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check grain==0.2.18 absl-py==2.5.1 jax==0.10.2 numpy==2.4.1
cat >"$work/plain.py" <<'EOF'
import sys

import grain
from absl import flags


def main():
    numbers = grain.MapDataset.range(6).map(lambda x: 2 * x).to_iter_dataset()
    assert list(numbers) == [0, 2, 4, 6, 8, 10]
    if sys.argv[1] == "marked":
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=1)
    print(sys.argv[1], list(numbers.mp_prefetch(options)))


if __name__ == "__main__":
    main()
EOF
cd "$work"
env/bin/python plain.py marked
if env/bin/python plain.py plain 2>error.txt; then
    echo "changed: workers start without absl's flags" && exit 1
fi
grep -o 'UnparsedFlagAccessError: Trying to access flag --grain[a-z_]*' error.txt | head -1
