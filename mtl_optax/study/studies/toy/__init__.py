"""CAGrad's toy: two losses of two parameters, whose best compromise is known."""
