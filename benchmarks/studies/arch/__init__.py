"""Architectures: what is shared, and how, in place of how it is trained."""
