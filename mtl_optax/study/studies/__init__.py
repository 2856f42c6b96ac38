"""The studies, by name: a folder each, whose `study.py` holds `STUDY`.

A study's folder and a line here are all that a new study needs.
"""

import importlib
from typing import Any

# Light: the command line shows these before it loads any of them.
STUDIES = {
    "stress": "one of two losses is multiplied by 1000 (default)",
    "transfer": "four tasks, two of which suffer from joint training",
    "toy": "two losses of two parameters, whose best compromise is known",
    "null": "two tasks at equal scales: does any method differ from the sum?",
    "flat": "six studies: flat minima under wrong and missing labels of a task",
    "priority": "cso, cdtt and nmt, each on the problem that it was made for",
    "arch": "architectures on the four tasks of transfer (minutes)",
    "towers": "width of task towers, with and without small auxiliary ones beside them",
    "groups": "two, four, six tasks in two blocks: who finds them? (minutes)",
    "vmtl": "priors made of other domains, where labels are few (minutes)",
}


def load(name: str) -> Any:
    """The `Study` of this name."""
    return importlib.import_module(f"{__name__}.{name}.study").STUDY
