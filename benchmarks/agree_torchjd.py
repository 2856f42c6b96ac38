"""TorchJD's aggregators, weightings and scalarizers beside our methods."""

from typing import Any

import numpy as np
import torch
from torchjd import aggregation as agg
from torchjd import scalarization as sca

import mtl_optax as mtl
from benchmarks.peers_agree import (
    ALL,
    FOUR,
    LOSSES,
    SEVEN,
    STEPS,
    TWO,
    Aggregate,
    Pair,
    ours,
)

PREFERENCE = np.array([0.4, 0.3, 0.2, 0.1])


def aggregator(make: Any) -> Aggregate:
    def aggregate(jacobian: np.ndarray) -> Any:
        method = make(len(jacobian))
        return [method(torch.from_numpy(jacobian)) for _ in range(STEPS)][-1].numpy()

    return aggregate


def weighting(make: Any) -> Aggregate:
    """Of the Gramian, which then weights the rows."""

    def aggregate(jacobian: np.ndarray) -> Any:
        gramian = torch.from_numpy(jacobian @ jacobian.T)
        method = make(len(jacobian))
        return [method(gramian) for _ in range(STEPS)][-1].numpy() @ jacobian

    return aggregate


def scalarizer(make: Any) -> Aggregate:
    """Its gradient in the losses weights the rows; at the first step."""

    def aggregate(jacobian: np.ndarray) -> Any:
        losses = torch.tensor(LOSSES[: len(jacobian)], requires_grad=True)
        make(len(jacobian)).double()(losses).backward()
        return losses.grad.numpy() @ jacobian

    return aggregate


def preference(num_tasks: int) -> Any:
    return torch.from_numpy(PREFERENCE[:num_tasks])


def majority(share: Any) -> Any:
    """For GradDrop: the sign of the larger sum, whatever is drawn."""
    return (share > 0.5) * 1.0


def pairs() -> list[Pair]:
    return [
        ("Sum, unitary", aggregator(lambda T: agg.Sum()), ours(mtl.unitary), ALL),
        ("Mean, mean", aggregator(lambda T: agg.Mean()), ours(mtl.mean), ALL),
        (
            "Constant(w), constant(weights=w)",
            aggregator(lambda T: agg.Constant(preference(T))),
            ours(lambda T: mtl.constant(T, weights=PREFERENCE[:T])),
            ALL,
        ),
        ("UPGrad, upgrad", aggregator(lambda T: agg.UPGrad()), ours(mtl.upgrad), ALL),
        (
            "UPGrad, upgrad(reg_eps=1e-4)",
            aggregator(lambda T: agg.UPGrad()),
            ours(lambda T: mtl.upgrad(T, reg_eps=1e-4)),
            ALL,
        ),
        (
            "UPGrad(pref_vector=p), upgrad(preference=p, reg_eps=1e-4)",
            aggregator(lambda T: agg.UPGrad(pref_vector=preference(T))),
            ours(lambda T: mtl.upgrad(T, preference=PREFERENCE[:T], reg_eps=1e-4)),
            ALL,
        ),
        (
            "DualProj, dualproj(reg_eps=1e-4)",
            aggregator(lambda T: agg.DualProj()),
            ours(lambda T: mtl.dualproj(T, reg_eps=1e-4)),
            ALL,
        ),
        (
            "CAGrad(c=0.4), cagrad(c=0.4, rescale=0)",
            aggregator(lambda T: agg.CAGrad(c=0.4)),
            ours(lambda T: mtl.cagrad(T, c=0.4, rescale=0)),
            ALL,
        ),
        ("MGDA, mgda", aggregator(lambda T: agg.MGDA()), ours(mtl.mgda), ALL),
        ("IMTLG, imtl_g", aggregator(lambda T: agg.IMTLG()), ours(mtl.imtl_g), ALL),
        (
            "PCGrad, pcgrad",
            aggregator(lambda T: agg.PCGrad()),
            ours(lambda T: mtl.pcgrad(T, key=0)),
            TWO,
        ),
        (
            "GradVac, gradvac",
            aggregator(lambda T: agg.GradVac()),
            ours(lambda T: mtl.gradvac(T, key=0)),
            TWO,
        ),
        (
            "AlignedMTL, aligned_mtl",
            aggregator(lambda T: agg.AlignedMTL()),
            ours(mtl.aligned_mtl),
            ALL,
        ),
        (
            "NashMTL(T, 0, 1, 20), nash_mtl",
            aggregator(lambda T: agg.NashMTL(T, 0, 1, 20)),
            ours(mtl.nash_mtl),
            ALL,
        ),
        (
            "NashMTL(T, 1, 1, 20), nash_mtl(max_norm=1)",
            aggregator(lambda T: agg.NashMTL(T, 1, 1, 20)),
            ours(lambda T: mtl.nash_mtl(T, max_norm=1.0)),
            ALL,
        ),
        (
            "FairGrad(alpha=2), fairgrad(alpha=2)",
            aggregator(lambda T: agg.FairGrad(alpha=2.0)),
            ours(lambda T: mtl.fairgrad(T, alpha=2.0)),
            ALL,
        ),
        (
            "ConFIG, conflictfree",
            aggregator(lambda T: agg.ConFIG()),
            ours(mtl.conflictfree),
            ALL,
        ),
        (
            "GradDrop(f), graddrop(f=f)",
            aggregator(lambda T: agg.GradDrop(f=majority)),
            ours(lambda T: mtl.graddrop(T, key=0, f=majority)),
            ALL,
        ),
        (
            "Krum(1), krum(num_byzantine=1)",
            aggregator(lambda T: agg.Krum(1)),
            ours(lambda T: mtl.krum(T, num_byzantine=1)),
            SEVEN,
        ),
        (
            "TrimmedMean(1), trimmed_mean",
            aggregator(lambda T: agg.TrimmedMean(1)),
            ours(mtl.trimmed_mean),
            FOUR,
        ),
        (
            "ExcessMTL, excess_mtl(step_size=1, normalize='simplex')",
            aggregator(lambda T: agg.ExcessMTL()),
            ours(lambda T: mtl.excess_mtl(T, step_size=1.0, normalize="simplex")),
            ALL,
        ),
        (
            "MoDoWeighting(), modo(gamma=0.1)",
            weighting(lambda T: agg.MoDoWeighting()),
            ours(lambda T: mtl.modo(T, gamma=0.1)),
            ALL,
        ),
        (
            "SDMGradWeighting(), sdmgrad(learning_rate=10)",
            weighting(lambda T: agg.SDMGradWeighting()),
            ours(lambda T: mtl.sdmgrad(T, learning_rate=10.0)),
            ALL,
        ),
        (
            "CRMOGMWeighting(MGDAWeighting()), cr_mogm(mgda.weighting())",
            weighting(lambda T: agg.CRMOGMWeighting(agg.MGDAWeighting())),
            ours(lambda T: mtl.from_weighting(mtl.cr_mogm(mtl.mgda.weighting()), T)),
            ALL,
        ),
        (
            "GeometricMean, gls",
            scalarizer(lambda T: sca.GeometricMean()),
            ours(mtl.gls, 1),
            ALL,
        ),
        (
            "STCH(mu=0.5), stch(mu=0.5)",
            scalarizer(lambda T: sca.STCH(mu=0.5)),
            ours(lambda T: mtl.stch(T, mu=0.5), 1),
            ALL,
        ),
        (
            "COSMOS(2, p), cosmos(mu=2, preference=p)",
            scalarizer(lambda T: sca.COSMOS(2.0, preference(T))),
            ours(lambda T: mtl.cosmos(T, mu=2.0, preference=PREFERENCE[:T]), 1),
            ALL,
        ),
        (
            "PBI(5, p), pbi(preference=p)",
            scalarizer(lambda T: sca.PBI(5.0, preference(T))),
            ours(lambda T: mtl.pbi(T, preference=PREFERENCE[:T]), 1),
            ALL,
        ),
        ("UW, uw", scalarizer(sca.UW), ours(mtl.uw, 1), ALL),
        ("IMTLL, imtl_l", scalarizer(sca.IMTLL), ours(mtl.imtl_l, 1), ALL),
        ("FAMO, famo", scalarizer(sca.FAMO), ours(mtl.famo, 1), ALL),
        ("DWA, dwa", scalarizer(lambda T: sca.DWA()), ours(mtl.dwa, 1), ALL),
    ]
