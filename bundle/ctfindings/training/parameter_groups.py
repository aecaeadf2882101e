"""Parameter groups of the optimizer: with and without weight decay, and at another learning rate."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from bundle.ctfindings.networks.image.resnet_tower import ResNetTower


def parameter_groups(
    network: nn.Module, loss: nn.Module, slow: Iterable[nn.Parameter] = (), slow_rate: float = 0.0
) -> list[dict[str, Any]]:
    """The trainable parameters in groups for an optimizer, with its weight decay and with none.

    Weights of linear layers, convolutions, embeddings and queries decay. Biases, parameters with fewer than two
    dimensions (norms, scales, temperatures) and all parameters of the loss do not: decay of the logarithm of a scale
    would pull the scale to 1.

    Args:
        slow: Parameters of the network with a learning rate of their own, in two more groups.
        slow_rate: Their learning rate.

    Raises:
        ValueError: The network has a frozen tower without the weights of a checkpoint.
    """
    if any(isinstance(module, ResNetTower) and not module.loaded for module in network.modules()):
        raise ValueError(
            "image_tower: ResNetTower is frozen and has random weights; add configs/networks/astra_frozen.json, which "
            "loads those of frozen_weights, or start from an adapted checkpoint with configs/finetune.json"
        )
    apart = {id(parameter) for parameter in slow}
    groups: list[dict[str, Any]] = [{"params": []}, {"params": [], "weight_decay": 0.0}]
    if apart:
        groups += [{**group, "params": [], "lr": slow_rate} for group in groups]
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            # A bias of each anatomy is a matrix.
            kept = parameter.ndim < 2 or name.rpartition(".")[2] == "bias"
            groups[2 * (id(parameter) in apart) + kept]["params"].append(parameter)
    groups[1]["params"] += [parameter for parameter in loss.parameters() if parameter.requires_grad]
    return groups
