"""One table: how each reference method is called here, and what is compared."""

from golden_from_gradients import ADAPTERS as FROM_GRADIENTS
from golden_from_gramian import ADAPTERS as FROM_GRAMIAN
from golden_from_losses import ADAPTERS as FROM_LOSSES

ADAPTERS = {**FROM_LOSSES, **FROM_GRAMIAN, **FROM_GRADIENTS}
