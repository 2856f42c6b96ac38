"""Small towers: their width, with and without auxiliary ones beside them."""
