"""The figures of reports, one a file.

A figure is a function of the results; a study lists those that its report shows.
"""
