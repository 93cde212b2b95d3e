"""Critics: what a stage tells about a yes or no, by the later layers trained anew to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qunlearn.errors import UnsupportedError
from qunlearn.evaluation.audit.subject import Subject, cannot_start_afresh, fresh_model
from qunlearn.metrics.folds import deal
from qunlearn.models import Stage
from qunlearn.training.net import Net, Tensors, evaluating
from qunlearn.training.optimizers import Adam
from qunlearn.training.replicas import obstacle
from qunlearn.training.seeds import Seeds

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
FOLDS = 2
STEPS = 80
RATE = 0.03
DECAY = 1e-2
WIDTH = 8  # of the space in which stage and label meet
DUMMY = 2  # samples that run through the earlier stages, so that the later ones can be given something else


def information_by_sample(
    subject: Subject, stage: Stage, rows: dict[str, npt.NDArray[np.int64]], member: Flags, seeds: Seeds
) -> Floats | str:
    """Contributions of the samples ``(n,)`` to a lower bound of I(Z; Y) in nats, Z a stage's output, Y membership.

    The critic is s(z, y) = f(z) . g(y): f the later layers, freshly initialised, with a linear projection to 8 numbers,
    g a trained vector for each of both labels. It maximises the InfoNCE bound with all samples as one batch,
    mean_i [s(z_i, y_i) - ln mean_j exp s(z_i, y_j)], and scores samples that it was not trained on (two folds). All
    models' critics start alike.

    Args:
        subject: the model.
        stage: one of its stages.
        rows: which samples of which set, in the order of `member`.
        member: Y of each.
        seeds: of folds and critics.

    Returns:
        A sentence's end that says why, where the stage can't be read like that.

    Source: van den Oord et al. 2018, arXiv 1807.03748 (InfoNCE); Jeon et al. 2024, arXiv 2405.17878 (the critic; there
    scored on the samples that it was trained on, which overstates what a small set tells).
    """
    found = subject.outputs.stages.get(stage.name)
    if found is None:
        return f"stage {stage.name} hands on no features, one row a sample"
    z = torch.cat([found[name][torch.from_numpy(part)] for name, part in rows.items()])
    z = (z - z.mean(0)) / z.std(0).clamp_min(1e-6)
    samples = torch.cat([subject.sets[name].x[torch.from_numpy(part)] for name, part in rows.items()])
    dummy = subject.inputs(samples[:DUMMY]).cpu()
    fold = deal(member.astype(np.int64), FOLDS, np.random.default_rng(seeds.integer("critic folds")))
    try:
        fresh = fresh_model(subject.model, seeds.integer("critic"), samples).cpu()
        with evaluating(fresh), _given(fresh.get_submodule(stage.module)) as give:
            give(z.reshape(len(z), *subject.outputs.shapes[stage.name]))
            later = [name for other in _after(subject, stage) for name in other.parameters]
            return _bound(Net(fresh), later, dummy, torch.from_numpy(member), torch.from_numpy(fold), seeds)
    except UnsupportedError:
        return cannot_start_afresh(subject.model)
    except RuntimeError:
        return f"what follows stage {stage.name} also reads earlier stages, so that it can't be run on its own"


def _after(subject: Subject, stage: Stage) -> tuple[Stage, ...]:
    return subject.stages[subject.stages.index(stage) + 1 :]


def _bound(net: Net, later: list[str], dummy: Tensor, member: Tensor, fold: Tensor, seeds: Seeds) -> Floats:
    """Trains a critic a fold, at once where the model allows it; each sample's term, by the other's."""
    parameters = {**{name: net.parameters[name] for name in later}, **_ends(net, dummy, seeds)}
    apart = obstacle(net.module) is not None
    shares = torch.stack([(~member).double().mean(), member.double().mean()]).log().to(parameters["labels"])
    y = member.long()

    def terms(own: Tensors) -> Tensor:
        features = net.at({name: own[name] for name in later})(dummy) @ own["projection"]
        scores = features @ own["labels"]
        return scores.gather(1, y[:, None])[:, 0] - (scores + shares).logsumexp(1)

    def every(own: Tensors) -> Tensor:
        if not apart:
            found: Tensor = torch.vmap(terms)(own)
            return found
        return torch.stack([terms({name: part[row] for name, part in own.items()}) for row in range(FOLDS)])

    leaves = {
        name: part.detach().expand(FOLDS, *part.shape).clone().requires_grad_() for name, part in parameters.items()
    }
    inside = torch.stack([fold != row for row in range(FOLDS)]).to(shares)
    _ascend(leaves, lambda: (every(leaves) * inside / inside.sum(1, keepdim=True)).sum())
    with torch.no_grad():
        return (every(leaves) * (1 - inside)).sum(0).double().numpy()


def _ascend(leaves: Tensors, value: Callable[[], Tensor]) -> None:
    optimizer = Adam(leaves.values(), learning_rate=RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        gradients = torch.autograd.grad(-value(), list(leaves.values()), allow_unused=True, materialize_grads=True)
        optimizer.step(gradients)


def _ends(net: Net, dummy: Tensor, seeds: Seeds) -> Tensors:
    """The projection ``(classes, 8)`` and the labels' vectors ``(8, 2)`` before training."""
    with torch.no_grad():
        like = net(dummy)
    generator = seeds.generator("critic ends")
    sizes = {"projection": (like.shape[1], WIDTH), "labels": (WIDTH, 2)}
    return {name: (torch.randn(size, generator=generator) / size[0] ** 0.5).to(like) for name, size in sizes.items()}


@contextmanager
def _given(module: nn.Module) -> Iterator[Callable[[Tensor], None]]:
    """Inside, the module hands on what it is given, whatever enters it."""
    held: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _inputs, _output: held[-1])
    try:
        yield held.append
    finally:
        hook.remove()
