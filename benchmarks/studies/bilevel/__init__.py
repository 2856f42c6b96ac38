"""Bilevel weights, where one auxiliary task is noise: does a second batch tell?"""
