"""Exchange the style of features between films in training (Zhou et al. 2021, MixStyle).

Mean and spread of a feature map over its places tell scanner and processing more than disease. In
training, early maps of some films get a part of another film's; in use nothing is changed.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from covidnet_node.models.nets import Classifier

EARLY_STAGES = 2
SHARE = 0.5
"""Of the batches."""
CONCENTRATION = 0.3
"""Of the beta distribution that the parts are drawn from: mostly nearly all, or nearly none."""


@contextmanager
def mixed_styles(network: Classifier) -> Iterator[None]:
    """While in the block, the first stages of the trunk mix styles as often as they train."""
    with ExitStack() as hooks:
        for stage in list(network.trunk.stages)[:EARLY_STAGES]:  # type: ignore[arg-type]
            hooks.callback(stage.register_forward_hook(_mix).remove)
        yield


def _mix(stage: nn.Module, _images: tuple[Tensor], maps: Tensor) -> Tensor | None:
    if not stage.training or float(torch.rand(())) >= SHARE:
        return None
    mean = maps.mean((2, 3), keepdim=True).detach()
    spread = (maps.var((2, 3), keepdim=True) + 1e-6).sqrt().detach()
    other = torch.randperm(len(maps), device=maps.device)
    drawn = torch.distributions.Beta(CONCENTRATION, CONCENTRATION).sample((len(maps), 1, 1, 1))
    own = drawn.to(maps.device)
    wanted_mean = own * mean + (1 - own) * mean[other]
    wanted_spread = own * spread + (1 - own) * spread[other]
    return (maps - mean) / spread * wanted_spread + wanted_mean
