"""The large studies, beside their results: a folder each, whose study.py has `STUDY`.

They are as those of `mtl_optax.study.studies`, and `mtl-optax study` finds them in a
clone of the repository. The wheel does without them.
"""

STUDIES = {
    "flat": "six studies: flat minima under wrong and missing labels of a task",
    "priority": "cso, cdtt and nmt, each on the problem that it was made for",
    "arch": "architectures on the four tasks of transfer (minutes)",
    "towers": "width of task towers, with and without small auxiliary ones beside them",
    "groups": "two, four, six tasks in two blocks: who finds them? (minutes)",
    "bilevel": "one task matters, one is noise: does a second batch tell? (minutes)",
    "vmtl": "priors made of other domains, where labels are few (minutes)",
    "recent": "methods of 2022 to 2026: two and four tasks, losses of two scales",
}
