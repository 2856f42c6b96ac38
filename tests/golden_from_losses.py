"""How the reference methods of from_losses are called here; see golden_case.py."""

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


ADAPTERS = {
    "linear": Adapter("linear", _linear),
    "uw": Adapter("uw", _learned(mtl.uw)),
}
