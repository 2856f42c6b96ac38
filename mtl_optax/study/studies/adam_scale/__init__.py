"""Adam and the scale of a loss: what stays as it was, in heads and in the trunk."""
