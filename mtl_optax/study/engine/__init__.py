"""How studies are trained; knows no study, no page and no terminal."""
