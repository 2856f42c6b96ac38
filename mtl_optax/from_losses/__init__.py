"""Methods that see the losses only: one backward pass with lazy task gradients."""
