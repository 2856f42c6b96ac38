"""Adam against SGD with momentum, and Muon beside them."""
