"""From accuracies to a word, a sentence and a statement: the rule of each study.

Pure functions of small arrays. Axes are always (scale, seed, task), accuracies in
percent; the runs of one seed are paired: same start, same batches.
"""
