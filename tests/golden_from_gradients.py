"""How the reference methods of from_gradients are called here; see golden_case.py."""

from golden_case import Adapter, Call, Trajectory, Wanted

import mtl_optax as mtl


def _graddrop(args, a):
    return [
        Call(
            mtl.graddrop,
            a["direction"][k],
            static=(("key", 0),),
            numeric={"leak": a["leak"]},
            extras={"uniforms": uniform},
        )
        for k, uniform in enumerate(a["uniform"])
    ]


def _trimmed_mean(args, a):
    static = (("trim_number", args["trim_number"]),)
    return [Call(mtl.trimmed_mean, a["direction"], static=static)]


def _wanted(arrays, direction=None, weights=None):
    """Direction and task weights, those of them that are stored, by their names."""
    both = (direction, None), (weights, mtl.task_weights)
    return tuple(
        Wanted(name, arrays[name], read) for name, read in both if name in arrays
    )


def _excess_mtl(args, a):
    forms = [
        (_wanted(a, "direction_official", "weights_official"), 0, "sum"),
        (_wanted(a, weights="weights_torchjd_warmup0"), 0, "simplex"),
        (_wanted(a, weights="weights_torchjd_warmup2"), 2, "simplex"),
    ]
    return [
        Trajectory(
            mtl.excess_mtl,
            a["J"],
            wanted,
            static=(("warmup", warmup), ("normalize", normalize)),
            numeric={"step_size": args["robust_step_size"]},
        )
        for wanted, warmup, normalize in forms
        if wanted
    ]


def _db_mtl(args, a):
    return [
        Trajectory(
            mtl.db_mtl,
            a["J"],
            _wanted(a, "direction", "balance"),
            numeric=args,
            extras={"losses": a["losses"]},
        )
    ]


def _moco(args, a):
    softmax = args["variant"] == "libmtl_softmax"
    named = ("beta", "beta_sigma", "gamma", "gamma_sigma", "rho")
    return [
        Trajectory(
            mtl.moco,
            a["J"],
            _wanted(a, "direction", "weights"),
            static=(("projection", "softmax" if softmax else "simplex"),),
            numeric={name: args[name] for name in named if name in args},
            extras={"losses": a["losses"]} if softmax else {},
        )
    ]


ADAPTERS = {
    "db_mtl": Adapter("db_mtl", _db_mtl),
    "excess_mtl": Adapter("excess_mtl", _excess_mtl),
    "graddrop": Adapter("graddrop", _graddrop),
    "moco": Adapter("moco", _moco),
    "trimmed_mean": Adapter("trimmed_mean", _trimmed_mean),
}
