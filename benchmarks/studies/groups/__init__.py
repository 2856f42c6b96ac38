"""Task groups: two blocks of tasks that are known, and who finds them."""
