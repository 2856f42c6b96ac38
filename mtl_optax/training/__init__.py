"""From a data set on disk to a trained network of several tasks."""
