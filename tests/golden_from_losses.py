"""How the reference methods of from_losses are called here; see golden_case.py."""

import numpy as np
from golden_case import (
    Adapter,
    Call,
    Trajectory,
    Wanted,
    only_losses,
    with_optimizer,
)

import mtl_optax as mtl


def _linear(args, a):
    return [
        Call(mtl.mean, a["mean"], "mean"),
        Call(mtl.unitary, a["sum"], "sum"),
        Call(
            mtl.constant,
            a["constant"],
            "constant",
            numeric={"weights": a["constant_weights"]},
        ),
    ]


def _learned(factory):
    """A method that learns a scalar a task: the weights used at each step."""

    def calls(args, a):
        losses = a["losses"]
        return [
            Trajectory(
                with_optimizer(factory, args["optimizer"]),
                only_losses(losses),
                (Wanted("weights", a["weights"], mtl.task_weights),),
                numeric={
                    "learning_rate": args["learning_rate"],
                    "init": args["init"],
                },
                extras={"losses": losses},
            )
        ]

    return calls


def _weights_alone(factory, losses, weights, name="weights", **given):
    """The weights of one step, whatever the gradients."""
    return Trajectory(
        factory,
        only_losses(losses[None]),
        (Wanted(name, weights[None], mtl.task_weights),),
        numeric=given,
        extras={"losses": losses[None]},
    )


def _gls(args, a):
    if "J" not in a:
        return [_weights_alone(mtl.gls, a["losses"], a["weights"])]
    extras = {"losses": a["losses"]}
    return [Call(mtl.gls, a["direction"], weights=a["weights"], extras=extras)]


def _rlw(args, a):
    return [
        Call(
            mtl.rlw,
            a["direction"][k],
            weights=a["weights"][k],
            static=(("key", 0), ("distribution", args["distribution"])),
            extras={"normals": draws},
        )
        for k, draws in enumerate(a["draws"])
    ]


def _dwa(args, a):
    losses, weights = a["losses"], a["weights"]
    if "iteration_window" in args:
        window, average = args["iteration_window"], "sliding"
    else:
        # [epochs, batches, T]: the weights of an epoch are those of all its batches.
        window, average = losses.shape[1], "epochs"
        weights = np.repeat(weights, window, axis=0)
        losses = losses.reshape(-1, losses.shape[-1])
    return [
        Trajectory(
            mtl.dwa,
            only_losses(losses),
            (Wanted("weights", weights, mtl.task_weights),),
            static=(("window", window), ("average", average)),
            numeric={"temperature": args["temperature"]},
            extras={"losses": losses},
        )
    ]


def _famo(args, a):
    before, after = a["losses_before"], a["losses_after"]
    # Those after a step come with the next; the first has none, and looks at none.
    previous = np.concatenate([np.full_like(after[:1], np.nan), after[:-1]])
    return [
        Trajectory(
            with_optimizer(mtl.famo, "adam"),
            only_losses(before),
            (
                Wanted("weights", a["weights"], mtl.task_weights),
                Wanted(
                    "logits",
                    a["logits"][:-1],
                    lambda state: state.weighting.logits.values,
                ),
            ),
            numeric={
                "learning_rate": args["w_lr"],
                "weight_decay": args["gamma_weight_decay"],
                "min_losses": a["min_losses"],
            },
            extras={"losses": before, "previous_losses": previous},
        )
    ]


def _stch(args, a):
    mu, losses, name = args["mu"], a["losses"], "weights_official_log"
    uniform = _weights_alone(
        mtl.stch, losses, a["weights_uniform"], "weights_uniform", mu=mu
    )
    given = _weights_alone(
        mtl.stch,
        losses,
        a["weights"],
        mu=mu,
        preference=a["preference"],
        reference=a["reference"],
    )
    official = Call(
        mtl.stch,
        a["direction_official_log"],
        "direction_official_log",
        weights=a[name],
        weights_tolerance=name,
        numeric={"mu": mu, "nadir": a["nadir"]},
        extras={"losses": losses},
    )
    return [uniform, given, official]


ADAPTERS = {
    "dwa": Adapter("dwa", _dwa),
    "famo": Adapter("famo", _famo),
    "gls": Adapter("gls", _gls),
    "imtl_l": Adapter("imtl_l", _learned(mtl.imtl_l)),
    "linear": Adapter("linear", _linear),
    "rlw": Adapter("rlw", _rlw),
    "stch": Adapter("stch", _stch),
    "uw": Adapter("uw", _learned(mtl.uw)),
}
