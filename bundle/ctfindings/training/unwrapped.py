"""The network inside the wrapper that trains it on several processes."""

from typing import Any

from torch.nn.parallel import DistributedDataParallel


def unwrapped(item: Any) -> Any:
    """The network inside ``DistributedDataParallel``; anything else as it is."""
    return item.module if isinstance(item, DistributedDataParallel) else item
