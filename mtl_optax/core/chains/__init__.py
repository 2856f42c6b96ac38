"""What `check_chain` sees of a chain: what reaches a method, what it cannot wrap."""
