#!/usr/bin/env bash
# pickletools.genops and dis end at a byte string of Python 2 that pickle.load reads.
#
# Package: pickletools of Python 3.11 and 3.13's standard library.
# Expected: what pickle.loads(data, encoding="latin1") reads, pickletools can list.
# Seen: in protocol 0, the default of Python 2, a str with a byte above 127 (every array of
#   uint8 of that age has one) raises "'ascii' codec can't decode byte". Protocol 2 is fine.
# What it did here: read_pickle of mtl_optax/data/pickles.py, which compares the sizes that
#   a pickle claims with the file before it loads it, reads opcodes by a loop of its own.
#
# Fails if this changes.
set -euo pipefail
python3 - <<'EOF'
import pickle
import pickletools
import sys

zero = b"S'\\x96'\np0\n."  # pickle.dumps("\x96") of Python 2.7.18
two = b"\x80\x02U\x01\x96q\x00."  # pickle.dumps("\x96", 2)
print("Python", sys.version.split()[0])
for data in (zero, two):
    print("loaded:", ascii(pickle.loads(data, encoding="latin1")))
print("listed, protocol 2:", [opcode.name for opcode, _, _ in pickletools.genops(two)])
try:
    list(pickletools.genops(zero))
except UnicodeDecodeError as error:
    print("listed, protocol 0:", error)
else:
    raise AssertionError("changed: protocol 0 is listed")
EOF
