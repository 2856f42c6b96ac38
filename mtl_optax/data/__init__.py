"""From a folder on disk to batches: loaders of the data sets of `mtl-optax train`.

Needs the extra `train`, and is imported as such: `import mtl_optax.data`.
"""
