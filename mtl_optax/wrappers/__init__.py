"""Transformations and weightings that wrap others."""
