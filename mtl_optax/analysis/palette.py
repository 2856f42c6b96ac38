"""Colours that colour-blind readers tell apart: those of Okabe and Ito, and of Tol."""

BLACK, GREY = "#000000", "#7F7F7F"
ORANGE, BLUE, VERMILION, GREEN = "#E69F00", "#0072B2", "#D55E00", "#009E73"
SKY, PURPLE = "#56B4E9", "#CC79A7"
OLIVE, WINE, INDIGO, VIOLET = "#999933", "#882255", "#332288", "#AA4499"  # Tol's

# In the order in which tasks take them.
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, OLIVE, WINE, INDIGO, VIOLET)
