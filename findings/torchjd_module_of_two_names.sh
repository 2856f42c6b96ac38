#!/usr/bin/env bash
# TorchJD: the Gramian engine counts a module that has two names in the model twice.
#
# Package: torchjd 0.18.0, torch 2.13.0, CPU.
# Expected: Engine(model, batch_dim=0).compute_gramian(losses) is that of the gradients in
#   model.parameters(), which holds each parameter once.
# Seen: where a layer stands in a ModuleList and in a Sequential made of its members, its
#   part of the Gramian is added twice, without a word; with one name the Gramian is right.
#   The weights taken from it differ, and so did training.
# What it did here: numbers of TorchJD on docs/from_torchjd.md come from plain Sequentials.
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 torchjd==0.18.0 numpy==2.4.1
"$work/env/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version

import torch
from torch import nn
from torchjd.autogram import Engine


class TwoNames(nn.Module):
    def __init__(self, first, last):
        super().__init__()
        self.layers = nn.ModuleList([first, last])
        self.rest = nn.Sequential(nn.Tanh(), last)

    def forward(self, x):
        return self.rest(self.layers[0](x))


def gramian(model, x):
    """Of the last layer alone, then of all: what the engine says, and the gradients'."""
    engine = Engine(model, batch_dim=0)
    losses = model(x).squeeze(1) ** 2
    said = engine.compute_gramian(losses)
    params = list(model.parameters())
    rows = [torch.autograd.grad(loss, params, retain_graph=True) for loss in losses]
    rows = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    last = rows[:, -model.size :]
    return said, rows @ rows.T, last @ last.T


print("torchjd", version("torchjd"), "torch", torch.__version__)
torch.manual_seed(0)
x = torch.randn(3, 5)
for make in (lambda a, b: nn.Sequential(a, nn.Tanh(), b), TwoNames):
    first, last = nn.Linear(5, 4), nn.Linear(4, 1)
    model = make(first, last)
    model.size = sum(p.numel() for p in last.parameters())
    assert len(list(model.parameters())) == 4
    said, true, of_last = gramian(model, x)
    print(type(model).__name__, "engine", said[0].tolist(), "gradients", true[0].tolist())
    wanted = true + (of_last if make is TwoNames else 0)
    assert torch.allclose(said, wanted, rtol=1e-4, atol=1e-5), "changed"
EOF
