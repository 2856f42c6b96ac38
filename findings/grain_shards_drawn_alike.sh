#!/usr/bin/env bash
# grain: processes that shard before `random_map` augment their rows alike.
#
# Package: grain 0.2.18, numpy 2.4.1.
# Expected: with one seed, shards of a data set are augmented as the whole is: draws of
#   different rows are independent, whichever process reads them.
# Seen: `random_map` seeds its generator with the row's place in the dataset in front of
#   it, and slicing renumbers the rows. So the first rows of all shards get the same
#   numbers, the second ones too, and so on: on N processes N rows of every global batch
#   are cropped and flipped alike. Where the slice comes after `random_map` they differ,
#   and are those of one process.
# What it did here: mtl_optax/data/loading.py augments first and shards then; a test holds
#   that shards are rows of the batches that one process would see.
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check grain==0.2.18 numpy==2.4.1
"$work/env/bin/python" - <<'EOF'
import grain


def draw(row, rng):
    return row, int(rng.integers(1000))


rows = grain.MapDataset.range(12).seed(0)
whole = list(rows.random_map(draw))
before = [list(rows[p::3].random_map(draw)) for p in range(3)]
after = [list(rows.random_map(draw)[p::3]) for p in range(3)]
print("one process   ", whole)
print("sharded before", before)
print("sharded after ", after)
assert after == [whole[p::3] for p in range(3)]
alike = [len({shard[i][1] for shard in before}) for i in range(4)]
assert alike == [1, 1, 1, 1], "changed: shards draw numbers of their own"
EOF
