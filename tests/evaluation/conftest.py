from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset, ForgetRequest, Split

CLASSES = 3


class Table(nn.Module):
    """Looks logits up by the sample's number (its only feature), so that every figure can be computed by hand."""

    table: Tensor

    def __init__(self, table: Tensor, weights: tuple[float, ...] = (0.0, 0.0)) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.table[x[:, 0].long()]


@pytest.fixture
def tables() -> Callable[..., Table]:
    """Makes a table of random logits for 60 samples from a seed."""

    def make(seed: int, scale: float = 3.0, weights: tuple[float, ...] = (0.0, 0.0)) -> Table:
        generator = torch.Generator().manual_seed(seed)
        return Table(scale * torch.randn(60, CLASSES, generator=generator, dtype=torch.float64), weights)

    return make


@pytest.fixture
def splits() -> Callable[..., Split]:
    """Makes a split of 60 samples, the number of a sample being its feature and its id, classes 0, 1, 2 in turn."""

    def make(request: ForgetRequest | None = None, protocol: str = "sound") -> Split:
        numbers = torch.arange(60)
        data = Dataset(numbers[:, None].double(), numbers % CLASSES)
        train, request = data.select(numbers[:30]), request or ForgetRequest.of_ids([4, 0, 2])
        chosen = torch.isin(train.ids, train.ids[request.select(train, 0)])
        validation, test, holdout = (data.select(numbers[start : start + 10]) for start in (30, 40, 50))
        aliases = {}
        if protocol == "published":
            validation, holdout = test, train.select(~chosen)
            aliases = {"validation": "test", "holdout": "retain"}
        return Split(
            train=train,
            forget=train.select(chosen),
            retain=train.select(~chosen),
            validation=validation,
            test=test,
            holdout=holdout,
            original=train,
            request=request,
            protocol=protocol,
            seed=0,
            aliases=aliases,
        )

    return make
