"""CAGrad's toy with the first loss times 0.1: does a method need equal scales?"""
