"""The large studies, beside their results: a folder each, whose study.py has `STUDY`.

They are as those of `mtl_optax.study.studies`, and `mtl-optax study` finds them in a
clone of the repository. The wheel does without them. Beside what each is about stand
the seconds that it takes on two cores.
"""

STUDIES = {
    "flat": (
        "six studies: flat minima under wrong and missing labels of a task",
        3500,
    ),
    "priority": (
        "cso, cdtt and nmt, each on the problem that it was made for",
        700,
    ),
    "arch": (
        "architectures on the four tasks of transfer",
        370,
    ),
    "towers": (
        "width of task towers, with and without small auxiliary ones beside them",
        500,
    ),
    "groups": (
        "two, four, six tasks in two blocks: who finds them?",
        2250,
    ),
    "bilevel": (
        "one task matters, one is noise: does a second batch tell?",
        410,
    ),
    "vmtl": (
        "priors made of other domains, where labels are few",
        2550,
    ),
    "recent": (
        "methods of 2022 to 2026: two and four tasks, losses of two scales",
        10000,
    ),
    "scalarisation": (
        "no method beats the tuned sum? do methods act as regularisation?",
        720,
    ),
    "repairs": (
        "negative transfer: rate, steps, width, weights, groups or methods?",
        500,
    ),
    "optimizers": (
        "Adam against SGD with momentum, and Muon: who holds the Pareto front?",
        900,
    ),
    "conflicts": (
        "conflicts between tasks beside those between samples of one task",
        300,
    ),
    "pinn": (
        "two equations solved by networks: ConFIG, M-ConFIG, and L-BFGS beside them",
        800,
    ),
    "corruptions": (
        "frozen trunks on corrupted digits: joint against single networks",
        600,
    ),
}
