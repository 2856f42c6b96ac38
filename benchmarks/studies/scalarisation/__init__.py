"""Kurin et al.: the plain sum against special methods, all tuned and regularised."""
