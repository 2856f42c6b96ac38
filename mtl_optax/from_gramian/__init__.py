"""Methods that see the Gramian of the task gradients: T backward passes."""
