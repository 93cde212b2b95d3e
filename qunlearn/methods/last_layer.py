"""The last layer of a model, where that is a linear map to the logits."""

from __future__ import annotations

import torch
from torch import nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.models import stages
from qunlearn.training.net import evaluating


def last_linear(model: nn.Module) -> str:
    """The path of the linear layer with which a model ends.

    Raises:
        InputError: where the last stage with parameters is something else.
    """
    ends = [stage for stage in stages(model) if stage.parameters]
    paths = ends[-1].modules if ends else ()
    last = [path for path in paths if any(True for _ in model.get_submodule(path).parameters(recurse=False))]
    if not last or not isinstance(model.get_submodule(last[-1]), nn.Linear):
        found = type(model.get_submodule(last[-1])).__name__ if last else "no parameters"
        raise InputError(
            f"expected a model that ends in a linear layer, got {found} at its end; "
            "give the model a linear head, or define stage_names() so that it comes last"
        )
    return last[-1]


def layer_of_logits(model: nn.Module, data: Dataset) -> nn.Linear:
    """The last linear layer of a model whose outputs it gives, one an output.

    Raises:
        InputError: where it has another number of outputs than the model.
    """
    layer = model.get_submodule(last_linear(model))
    assert isinstance(layer, nn.Linear)  # as last_linear checks
    with torch.no_grad(), evaluating(model):
        classes = model(data.x[:1]).shape[1]
    if layer.out_features != classes:
        raise InputError(
            f"expected a last linear layer with one output a class ({classes}), got {layer.out_features} outputs"
        )
    return layer
