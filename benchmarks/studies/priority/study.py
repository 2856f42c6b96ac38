"""The study of priority: three methods with an order of tasks, channels or tensions."""

from benchmarks.studies.priority import cso, gates, nmt
from mtl_optax.study.engine.study import Study

_PARTS = (cso.PART, gates.PART, nmt.PART)
STUDY = Study(
    name="priority",
    title="Priority",
    question="Who comes first? cso gives each channel to the task that depends on it "
    "most, cdtt pulls towards the tasks that converge least, and nmt trains in an "
    "order of importance. Each is tried on the problem that it was made for, in small. "
    "The equations of nmt are INFERRED: reconstructed from the paper's abstract and "
    "Platt and Barr 1987.",
    parts=_PARTS,
    quick=_PARTS,
    has_fixed_methods=True,
)
