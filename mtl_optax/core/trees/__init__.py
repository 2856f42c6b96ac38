"""Trees of parameters and arrays with a task axis, leaf by leaf."""
