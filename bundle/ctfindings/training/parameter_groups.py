"""Parameter groups of the optimizer: with and without weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(network: nn.Module, loss: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters in two groups for an optimizer; the second has a weight decay of 0.

    The first group are weights of linear layers, convolutions, embeddings and queries. The second are biases,
    parameters with fewer than two dimensions (norms, scales, temperatures) and all parameters of the loss. Weight decay
    on the logarithm of a scale would pull the scale to 1.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            # A bias of each anatomy is a matrix.
            (kept if parameter.ndim < 2 or name.rpartition(".")[2] == "bias" else decayed).append(parameter)
    kept += [parameter for parameter in loss.parameters() if parameter.requires_grad]
    return [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
