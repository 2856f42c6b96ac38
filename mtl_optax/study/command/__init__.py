"""The command `mtl-optax`."""
