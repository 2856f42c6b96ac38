"""Methods that see the Gramian of the task gradients: at most T backward passes."""
