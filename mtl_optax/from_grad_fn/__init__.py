"""Methods that ask the gradient function at other parameters: 2T passes or more."""
