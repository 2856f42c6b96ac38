"""Loss-scale stress: what becomes of a method when one loss is 1000 times as large."""
