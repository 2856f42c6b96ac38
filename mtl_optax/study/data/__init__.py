"""Data that need no download, networks for them, and the problems that both make."""
