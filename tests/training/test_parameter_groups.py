"""A decay pulls at weights alone; scales, biases and temperatures keep what they learned."""

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from bundle.ctfindings.losses.siglip import SigLIPLoss
from bundle.ctfindings.training import parameter_groups


class Small(nn.Module):
    """One parameter of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.bias = nn.Parameter(torch.ones(3, 2))
        self.log_temperature = nn.Parameter(torch.tensor(-2.0))
        self.locked = nn.Linear(2, 2).requires_grad_(False)


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_alone_decay(wrapped: bool) -> None:
    network, loss = Small(), SigLIPLoss()
    decayed, kept = parameter_groups(nn.Sequential(network) if wrapped else network, loss)
    assert [id(value) for value in decayed["params"]] == [id(network.linear.weight)]
    expected = [
        network.linear.bias,
        network.norm.weight,
        network.norm.bias,
        network.bias,
        network.log_temperature,
        *loss.parameters(),
    ]
    assert {id(value) for value in kept["params"]} == {id(value) for value in expected}


def test_slow_parameters_have_a_rate_of_their_own_and_decay_as_the_others() -> None:
    network, loss = Small(), SigLIPLoss()
    groups = parameter_groups(network, loss, slow=network.linear.parameters(), slow_rate=0.01)
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5)
    weight, bias = network.linear.weight, network.linear.bias
    settings = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    assert (settings[id(weight)]["lr"], settings[id(weight)]["weight_decay"]) == (0.01, 0.5)
    assert (settings[id(bias)]["lr"], settings[id(bias)]["weight_decay"]) == (0.01, 0.0)
    assert settings[id(network.norm.weight)]["lr"] == 0.1
    trained = [value for value in [*network.parameters(), *loss.parameters()] if value.requires_grad]
    assert settings.keys() == {id(value) for value in trained}


def test_a_temperature_without_gradient_stays_where_it_is() -> None:
    network = Small()
    optimizer = torch.optim.AdamW(parameter_groups(network, nn.Identity()), lr=0.1, weight_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight = network.linear.weight.detach().clone()
    optimizer.step()
    assert network.log_temperature.item() == -2.0
    torch.testing.assert_close(network.linear.weight.detach(), weight * 0.95)


@pytest.mark.parametrize("overlay", [None, "radfinder", "unified", "ca_gcl_prototypes"])
def test_the_training_decays_no_temperature_and_nothing_of_the_loss(overlay: str | None, bundle_root: Path) -> None:
    parser = ConfigParser()
    overlays = [] if overlay is None else [bundle_root / "configs" / "objectives" / f"{overlay}.json"]
    parser.read_config([str(path) for path in (bundle_root / "configs" / "train.json", *overlays)])
    parser["bundle_root"] = str(bundle_root)
    parser["training_studies"] = [{"id": "1", "labels": torch.zeros(18, dtype=torch.long)}]
    parser["train"]["dataloader"] = [0]
    optimizer, network, loss = (parser.get_parsed_content(name) for name in ("optimizer", "network_def", "loss"))
    decays = {id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    assert set(decays) == {id(value) for value in [*network.parameters(), *loss.parameters()] if value.requires_grad}
    scorer = network.scorer
    kept = [
        network.log_temperature,
        network.log_temperature_global,
        scorer.log_row_scale,
        scorer.log_token_scale,
        *loss.parameters(),
    ]
    assert {decays[id(value)] for value in kept} == {0.0}
    assert decays[id(network.image.anatomy_head.weight)] == 0.01
