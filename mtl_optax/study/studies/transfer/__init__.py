"""Negative transfer: four tasks, two of which suffer from joint training."""
