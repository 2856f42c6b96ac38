"""VMTL on four domains of digits: priors made of other domains; few labels."""
