"""The command `mtl-optax study`: methods compared on data that needs no download."""
