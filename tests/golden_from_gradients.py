"""How the reference methods of from_gradients are called here; see golden_case.py."""

from golden_case import Adapter, Call

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


ADAPTERS = {
    "graddrop": Adapter("graddrop", _graddrop),
}
