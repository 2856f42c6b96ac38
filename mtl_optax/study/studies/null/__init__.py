"""Equal scales: where no method should be better than another."""
