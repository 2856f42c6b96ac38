"""Per-task gradients in every form: stacked, as rows, not computed yet, at features."""
