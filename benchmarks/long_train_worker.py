"""`mtl-optax train ...`, with other seconds between two checkpoints within an epoch.

    python -m benchmarks.long_train_worker 60 train nyuv2 --data DIR

That is no option of the command: it moves no number, and five minutes suit everyone but
a benchmark that kills the process within an epoch of that length.
"""

import dataclasses
import sys

from mtl_optax.study.command import cli, train

if __name__ == "__main__":
    seconds = float(sys.argv[1])
    asked = train.settings_of
    train.settings_of = lambda *given: dataclasses.replace(
        asked(*given), save_seconds=seconds
    )
    sys.exit(cli.main(sys.argv[2:]))
