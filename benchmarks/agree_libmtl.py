"""LibMTL's weightings beside our methods; from a checkout, as in `peers_libmtl.py`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import mtl_optax as mtl
from benchmarks.peers_agree import ALL, LOSSES, STEPS, TWO, Aggregate, Pair, ours
from benchmarks.peers_libmtl import environment, load

NADIR = np.array([2.0, 1.0, 4.0, 3.0])


def version_of(path: Path) -> str:
    return environment(path)["libmtl"]


def pairs(path: Path) -> list[Pair]:
    torch.set_default_dtype(torch.float64)

    def theirs(name: str, steps: int = STEPS, **options: Any) -> Aggregate:
        """On losses that are linear in the shared parameters, with these slopes."""
        rows = options.pop("rows", None)
        set_up: Callable[[Any], None] = options.pop("set_up", lambda model: None)

        def aggregate(jacobian: np.ndarray) -> Any:
            slopes = torch.from_numpy(jacobian)
            shared = nn.ParameterList([torch.zeros(slopes.shape[1])])

            class Model(load(path, name)):  # type: ignore[misc]
                def get_share_params(self) -> Any:
                    return shared.parameters()

                def zero_grad_share_params(self) -> None:
                    shared.zero_grad(set_to_none=False)

            model = Model()
            model.task_num, model.device = len(slopes), torch.device("cpu")
            model.rep_grad, model.epoch = False, 0
            object.__setattr__(model, "encoder", shared)
            object.__setattr__(model, "decoders", {})
            model.init_param()
            set_up(model)
            for _ in range(steps):
                shared.zero_grad(set_to_none=False)
                losses = torch.from_numpy(LOSSES[: len(slopes)]) + slopes @ shared[0]
                if rows:  # so many batches, here the same one
                    losses = torch.stack([losses] * rows)
                model.backward(losses, **options)
            return shared[0].grad.numpy()

        return aggregate

    def with_nadir(model: Any) -> None:
        model.epoch, model.nadir_vector = 9, torch.from_numpy(NADIR[: model.task_num])

    return [
        ("EW, unitary", theirs("EW"), ours(mtl.unitary), ALL),
        (
            "UW, uw(init=-0.5)",
            theirs("UW", 1),
            ours(lambda T: mtl.uw(T, init=-0.5), 1),
            ALL,
        ),
        ("GLS, gls", theirs("GLS"), ours(mtl.gls), ALL),
        (
            "STCH in its warm-up, scale_invariant",
            theirs("STCH", STCH_mu=1.0, STCH_warmup_epoch=4),
            ours(mtl.scale_invariant),
            ALL,
        ),
        (
            "STCH, stch(nadir=n)",
            theirs("STCH", STCH_mu=1.0, STCH_warmup_epoch=4, set_up=with_nadir),
            ours(lambda T: mtl.stch(T, nadir=NADIR[:T])),
            ALL,
        ),
        (
            "FAMO, famo",
            theirs("FAMO", 1, FAMO_w_lr=0.025, FAMO_w_gamma=1e-3),
            ours(mtl.famo, 1),
            ALL,
        ),
        ("MGDA none, mgda", theirs("MGDA", mgda_gn="none"), ours(mtl.mgda), ALL),
        (
            "MGDA l2, mgda(normalization='l2', apply_to='normalized')",
            theirs("MGDA", mgda_gn="l2"),
            ours(lambda T: mtl.mgda(T, normalization="l2", apply_to="normalized")),
            ALL,
        ),
        ("PCGrad, pcgrad", theirs("PCGrad"), ours(lambda T: mtl.pcgrad(T, key=0)), TWO),
        (
            "GradVac 0, gradvac",
            theirs("GradVac", GradVac_beta=0.5, GradVac_group_type=0),
            ours(lambda T: mtl.gradvac(T, key=0)),
            TWO,
        ),
        ("IMTL at its first step, imtl_g", theirs("IMTL", 1), ours(mtl.imtl_g, 1), ALL),
        (
            "CAGrad 0.5, cagrad(c=0.5)",
            theirs("CAGrad", calpha=0.5, rescale=1),
            ours(lambda T: mtl.cagrad(T, c=0.5)),
            ALL,
        ),
        (
            "Nash_MTL, nash_mtl(max_norm=1)",
            theirs("Nash_MTL", update_weights_every=1, optim_niter=20, max_norm=1.0),
            ours(lambda T: mtl.nash_mtl(T, max_norm=1.0)),
            ALL,
        ),
        (
            "FairGrad, fairgrad",
            theirs("FairGrad", FairGrad_alpha=1.0),
            ours(mtl.fairgrad),
            ALL,
        ),
        (
            "UPGrad, upgrad(reg_eps=1e-4)",
            theirs("UPGrad", UPGrad_norm_eps=1e-4, UPGrad_reg_eps=1e-4),
            ours(lambda T: mtl.upgrad(T, reg_eps=1e-4)),
            ALL,
        ),
        (
            "MoCo, moco(projection='softmax', its defaults)",
            theirs(
                "MoCo",
                MoCo_beta=0.5,
                MoCo_beta_sigma=0.5,
                MoCo_gamma=0.1,
                MoCo_gamma_sigma=0.5,
                MoCo_rho=0,
            ),
            ours(
                lambda T: mtl.moco(
                    T,
                    projection="softmax",
                    beta=0.5,
                    beta_sigma=0.5,
                    gamma=0.1,
                    gamma_sigma=0.5,
                    rho=0,
                )
            ),
            ALL,
        ),
        (
            "DB_MTL, db_mtl",
            theirs("DB_MTL", DB_beta=0.9, DB_beta_sigma=0),
            ours(mtl.db_mtl),
            ALL,
        ),
        (
            "ExcessMTL, excess_mtl",
            theirs("ExcessMTL", robust_step_size=1e-2),
            ours(mtl.excess_mtl),
            ALL,
        ),
        (
            "MoDo, modo",
            theirs("MoDo", rows=3, MoDo_gamma=1e-3, MoDo_rho=0.1),
            ours(mtl.modo),
            ALL,
        ),
        (
            "SDMGrad, sdmgrad",
            theirs("SDMGrad", rows=3, SDMGrad_lamda=0.3, SDMGrad_niter=20),
            ours(mtl.sdmgrad),
            ALL,
        ),
    ]
