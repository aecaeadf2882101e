"""Which parameters a weight decay pulls towards zero, and which it leaves."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(network: nn.Module, loss: nn.Module | None = None) -> list[dict[str, Any]]:
    """The trainable parameters as two groups for an optimizer, of which the second has a weight decay of 0.

    The first are weights: of linear layers, convolutions, embeddings and queries. The second are biases, parameters of
    fewer than two dimensions (norms, scales, temperatures) and all of the loss. A decay of a scale that is kept as its
    logarithm would pull the scale to 1, whatever the data say. A state of an optimizer with other groups does not load.

    Args:
        network: may be wrapped for several processes.
        loss: its own parameters are scales, biases and prototypes.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            # A bias of each anatomy is a matrix.
            (kept if parameter.ndim < 2 or name.rpartition(".")[2] == "bias" else decayed).append(parameter)
    kept += [parameter for parameter in loss.parameters() if parameter.requires_grad] if loss is not None else []
    return [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
