"""Three pairs of quadratics with known Pareto sets: who arrives without a setback?"""
