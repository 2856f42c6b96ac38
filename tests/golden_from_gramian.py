"""How the reference methods of from_gramian are called here; see golden_case.py."""

import numpy as np
from golden_case import Adapter, Call, Trajectory, Wanted, with_optimizer

import mtl_optax as mtl


def _mgda(args, a):
    if args["normalization"] == "none":
        return [Call(mtl.mgda, a["direction"], weights=a.get("weights"))]
    return [
        Call(
            mtl.mgda,
            a[f"direction_{apply_to}"],
            f"direction_{apply_to}",
            # Ours are the weights on the raw rows; stored are those of the solver.
            weights=a.get("weights") if apply_to == "raw" else None,
            static=(
                ("apply_to", apply_to),
                ("normalization", args["normalization"]),
            ),
            extras={"losses": a["losses"]},
        )
        for apply_to in ("raw", "normalized")
        if f"direction_{apply_to}" in a
    ]


def _cagrad(args, a):
    return [
        Call(
            mtl.cagrad,
            a.get(f"direction_rescale{rescale}"),
            f"direction_rescale{rescale}",
            weights=a.get("weights_rescale0") if rescale == 0 else None,
            weights_tolerance="weights_rescale0",
            numeric={"c": args["c"], "rescale": rescale},
        )
        for rescale in args["rescale"]
    ]


def _pcgrad(args, a):
    return [
        Call(
            mtl.pcgrad,
            a["direction"][k],
            weights=a["weights"][k],
            static=(("key", 0), ("reduction", args["reduction"])),
            extras={"order": order},
        )
        for k, order in enumerate(a["orders"])
    ]


def _imtl_g(args, a):
    return [Call(mtl.imtl_g, a["direction"], weights=a.get("weights"))]


def _nash_mtl(args, a):
    # An infinite max_norm clips nothing, and shares the compilation with 1.
    if "direction" not in a:
        return [Call(mtl.nash_mtl, numeric={"max_norm": np.inf})]
    return [
        Call(
            mtl.nash_mtl,
            a["direction"],
            weights=a["weights"],
            numeric={"max_norm": np.inf},
        ),
        Call(
            mtl.nash_mtl,
            a["direction_maxnorm1"],
            "direction_maxnorm1",
            numeric={"max_norm": 1.0},
        ),
    ]


def _aligned_mtl(args, a):
    return [
        Call(
            mtl.aligned_mtl,
            a["direction"],
            weights=a.get("weights"),
            static=(("scale_mode", args["scale_mode"]),),
            numeric={"preference": a["pref"]},
        )
    ]


def _double_sampling(factory, **names):
    """A method whose weights come from two batches and act on a third."""

    def calls(args, a):
        return [
            Trajectory(
                factory,
                a["J3"],
                (
                    Wanted("weights", a["weights"], mtl.task_weights),
                    Wanted("direction", a["direction"]),
                ),
                static=(("num_iters", args["n_iter"]),) if "n_iter" in args else (),
                numeric={ours: args[name] for name, ours in names.items()},
                extras={"gramian": a["J1"] @ a["J2"].swapaxes(1, 2)},
            )
        ]

    return calls


_modo = _double_sampling(mtl.modo, gamma="gamma", rho="rho")


_sdmgrad = _double_sampling(
    mtl.sdmgrad, **{"lr": "learning_rate", "momentum": "momentum", "lambda": "lam"}
)


def _pcd(args, a):
    given = args["tau"] if isinstance(args["tau"], float) else a["tau"]
    return [
        Trajectory(
            mtl.pcd,
            a["J"],
            (Wanted("direction", a["direction"]),),
            numeric={"tau": given, "beta": args["beta"]},
        )
    ]


def _gradnorm(args, a):
    def learned(states):
        return states.weighting.scalars.values

    def scaled(states):
        values = learned(states)
        return values / values.mean(axis=-1, keepdims=True)

    # Stored without the values at the start, or as the weights of the next step.
    after = {
        "softmax": lambda: Wanted("scale", a["scale"][1:], learned),
        "paper": lambda: Wanted("weights_after", a["weights_after"], scaled),
    }
    wanted = [Wanted("weights", a["weights"], mtl.task_weights)]
    wanted.append(after[args["variant"]]())
    if "direction" in a:
        wanted.append(Wanted("direction", a["direction"]))
    return [
        Trajectory(
            with_optimizer(mtl.gradnorm, args["optimizer"]),
            a["J"],
            tuple(wanted),
            static=(("variant", args["variant"]),),
            numeric={
                "alpha": args["alpha"],
                "learning_rate": args["learning_rate"],
                "initial_losses": a["initial_losses"],
            },
            extras={"losses": a["losses"]},
        )
    ]


def _smooth_given_weights(num_tasks, **keywords):
    """CR-MOGM around weights that are given."""

    def update(gramian, state, *, base_weights, **extra):
        return base_weights, state

    given = mtl.Weighting(lambda num_tasks: (), update, uses_gramian=False)
    smooth = mtl.cr_mogm(given, num_tasks, **keywords)
    return mtl.from_weighting(smooth, num_tasks)


def _cr_mogm(args, a):
    given = {name: a[name] for name in ("initial_weights",) if name in a}
    return [
        Trajectory(
            _smooth_given_weights,
            a["J"],
            (
                Wanted("weights", a["weights"], mtl.task_weights),
                Wanted("direction", a["direction"]),
            ),
            numeric={"alpha": args["alpha"], **given},
            extras={"base_weights": a["base_weights"]},
        )
    ]


def _fairgrad(args, a):
    # Cases without a solution name no alpha: any will do.
    numeric = {"alpha": args.get("alpha", 1.0)}
    weights = a.get("weights")
    return [Call(mtl.fairgrad, a.get("direction"), weights=weights, numeric=numeric)]


def _on_dual_cone(factory):
    """Exact, and regularised as in TorchJD."""

    def calls(args, a):
        numeric = {"preference": a["pref"]}
        exact = Call(
            factory,
            a["direction"],
            weights=a.get("weights"),
            numeric={**numeric, "reg_eps": 0.0},
        )
        if "direction_torchjd_reg" not in a:
            return [exact]
        name = "direction_torchjd_reg"
        regular = Call(factory, a[name], name, numeric={**numeric, "reg_eps": 1e-4})
        return [exact, regular]

    return calls


def _config(args, a):
    return [
        Call(
            mtl.conflictfree,
            a["direction"],
            weights=a.get("weights"),
            numeric={"preference": a["pref"]},
        )
    ]


def _targets(state):
    return state.weighting.phi


def _gradvac(args, a):
    wanted = [Wanted("direction", a["direction"])]
    if "phi" in a:
        wanted.append(Wanted("phi", a["phi"], _targets))
    return [
        Trajectory(
            mtl.gradvac,
            a["J"],
            tuple(wanted),
            static=(("key", 0),),
            numeric={"beta": args["beta"], "eps": args["eps"]},
            extras={"order": a["orders"]},
        )
    ]


def _krum(args, a):
    static = {
        "num_byzantine": args["n_byzantine"],
        "num_selected": args["n_selected"],
    }
    return [
        Call(
            mtl.krum,
            a["direction"],
            weights=a.get("weights"),
            static=tuple(static.items()),
        )
    ]


ADAPTERS = {
    "aligned_mtl": Adapter("aligned_mtl", _aligned_mtl, slow=True),
    "cagrad": Adapter("cagrad", _cagrad, slow=True),
    "config": Adapter("config", _config, slow=True),
    "cr_mogm": Adapter("cr_mogm", _cr_mogm),
    "dualproj": Adapter("dualproj", _on_dual_cone(mtl.dualproj), slow=True),
    "fairgrad": Adapter("fairgrad", _fairgrad, slow=True),
    "gradnorm": Adapter("gradnorm", _gradnorm),
    "gradvac": Adapter("gradvac", _gradvac),
    "imtl_g": Adapter("imtl_g", _imtl_g),
    "krum": Adapter("krum", _krum),
    "mgda": Adapter("mgda", _mgda, {"normalization": ("none",)}),
    "mgda_normalized": Adapter(
        "mgda", _mgda, {"normalization": ("l2", "loss", "loss+")}, slow=True
    ),
    "modo": Adapter("modo", _modo),
    "nash_mtl": Adapter("nash_mtl", _nash_mtl, slow=True),
    "pcd": Adapter("pcd", _pcd, slow=True),
    "pcgrad": Adapter("pcgrad", _pcgrad),
    "sdmgrad": Adapter("sdmgrad", _sdmgrad, slow=True),
    "upgrad": Adapter("upgrad", _on_dual_cone(mtl.upgrad), slow=True),
}
