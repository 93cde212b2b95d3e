"""The few losses that methods share, all means over the batch in nats."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from qunlearn.models.stream import Stream
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Samples
from qunlearn.training.train import supervised

retain_loss = supervised  # CE(f(x_r), y_r)


def ascent_loss(net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
    """-CE(f(x_f), y_f)."""
    return -cross_entropy(net(batch.forget.x), batch.forget.y)


def divergence(targets: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(targets || softmax(logits / T)), the mean over rows; both ``(batch, classes)``.

    A target probability of 0 contributes 0.
    """
    log_outputs = log_softmax(logits / temperature, dim=1)
    return (torch.xlogy(targets, targets) - targets * log_outputs).sum(1).mean()


def mixed_labels(mixed: Samples, labels: Tensor) -> Tensor:
    """Labels ``(batch,)`` of mixed samples: of forget samples those given ``(forget samples,)``, else their own."""
    last = len(labels) - 1
    return torch.where(mixed.position <= last, labels[mixed.position.clamp(max=last)], mixed.y)


def global_norm(gradients: dict[str, Tensor]) -> Tensor:
    """The L2 norm of all gradients together."""
    return torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt()
