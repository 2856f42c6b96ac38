"""Figures of one part, which any study can show."""
