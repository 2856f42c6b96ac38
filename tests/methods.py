"""One row a method: what it is called, what it needs, what it claims.

A row buys its method every check of test_contracts, test_properties and
test_optax_common; test_contracts checks that rows and public factories agree.
"""

from rows_from_gradients import FROM_GRADIENTS
from rows_from_gramian import FROM_GRAMIAN
from rows_from_losses import FROM_LOSSES

METHODS = [*FROM_LOSSES, *FROM_GRAMIAN, *FROM_GRADIENTS]
BY_NAME = {method.name: method for method in METHODS}
