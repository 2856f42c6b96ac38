"""Are features that several tasks share of more use where images are corrupted?"""
