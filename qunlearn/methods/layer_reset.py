"""Layer reset: exact unlearning of the last k, inside the circuit."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods import curvature
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.in_circuit import circuit_in
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models import stages
from qunlearn.models.initialise import redraw
from qunlearn.models.stream import Stream
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.layer import weights_by_depth
from qunlearn.training.net import Net, Tensors
from qunlearn.training.phases import Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class LayerReset(GradientMethod):
    r"""Draws the angles of the circuit's last layers anew and repairs them on the retain set.

    .. math:: L = \mathrm{CE}(f(x_r), y_r), \qquad \theta_{\text{last } k} \leftarrow U[0, 2\pi) \text{ or }
              N(0, \sigma^2), \qquad \theta_{\text{before}} \text{ fixed}

    EU-k with the layers of one circuit as its stages, which `eu-k` takes whole. ``to="fresh"`` draws as a new model
    does; ``to="identity"`` near 0, where every rotation does almost nothing and gradients are largest, so that the
    circuit is left as shallow as if it had never had these layers, but for their fixed gates.

    The repair moves the angles that were drawn and all that stands behind the circuit, which would else hold new
    layers to old outputs; it is not drawn anew, and keeps what it knows. Encoder and other angles stay, bit by bit:
    exactly what was reset is new. ``repair="all"`` moves everything.

    Layers are those of the card; angles before the first and after the last count as a layer each. Instead of the last
    k, `layers` names any: ``"0"``, ``"1,2,end"``. An angle that several layers use belongs to the first of them.
    A circuit of one encoding stays one unitary for all inputs: a reset changes what is measured of the states, not what
    they hold. Where the circuit encodes again behind a reset layer, its states are new.

    The cost is that of fine-tuning. Source: new here; the idea is EU-k, Goel et al. 2022, arXiv 2201.06640.
    """

    name: ClassVar[str] = "layer-reset"
    strategy = "can erase by re-uploading"
    epochs: int = hyper(10, "passes over the retain set", low=1)
    k: int = hyper(1, "how many layers, from the last", low=1)
    to: Literal["fresh", "identity"] = hyper(
        "fresh",
        "angles drawn as in a new model, or near 0",
        choices=("fresh", "identity"),
        search=["fresh", "identity"],
    )
    spread: float = hyper(0.1, "identity: standard deviation of the angles, radians", low=0)
    layers: str | None = hyper(None, 'chosen layers instead of the last k, such as "0,2"')
    repair: Literal["behind", "all"] = hyper(
        "behind", "what moves: new angles and what stands behind them, or everything", choices=("behind", "all")
    )

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses models without a trained circuit, or without the layers."""
        self.chosen(circuit_in(model, self.name)[1].circuit)

    def chosen(self, circuit: Circuit) -> list[int]:
        """The weights that are drawn anew, by index.

        Raises:
            InputError: for layers that the circuit does not have.
        """
        parts = weights_by_depth(circuit)
        names = list(parts)[-self.k :] if self.layers is None else [part.strip() for part in self.layers.split(",")]
        if self.layers is None and self.k > len(parts):
            raise InputError(f"expected k of at most {len(parts)} for {self.name} on this circuit, got {self.k}")
        if missing := [name for name in names if name not in parts]:
            raise InputError(
                f"expected layers out of {', '.join(parts)} for {self.name} on this circuit, got {', '.join(missing)}"
            )
        return sorted({index for name in names for index in parts[name]})

    def start(self, model: nn.Module, task: Task, generator: torch.Generator) -> nn.Module:
        """The model with its layers drawn anew."""
        name, layer = circuit_in(model, self.name)
        at, before = self.chosen(layer.circuit), layer.weights.detach().clone()
        if self.to == "fresh":
            redraw(model, int(torch.randint(2**62, (), generator=generator)), [name.rpartition(".")[0]])
            drawn = layer.weights.detach()[at]
        else:
            noise = torch.randn(len(at), generator=generator, dtype=before.dtype)
            drawn = self.spread * noise.to(before.device)
        with torch.no_grad():
            layer.weights.copy_(before.index_copy(0, torch.tensor(at, device=before.device), drawn))
        return model

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """Which angles may move, and where the others stand."""
        name, layer = circuit_in(net.module, self.name)
        origin = curvature.trained(net)[name]
        moves = torch.zeros_like(origin, dtype=torch.bool)
        moves[self.chosen(layer.circuit)] = True
        return {"moves": moves | (self.repair == "all"), "origin": origin}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Descent on the retain set, with the other angles held still."""
        moving = None if self.repair == "all" else self.behind(model)
        hold = functools.partial(self.hold, circuit_in(model, self.name)[0])
        return [Phase("retain", retain_loss, self.epochs, moving, project=hold)]

    def behind(self, model: nn.Module) -> frozenset[str]:
        """Full names of the circuit's weights and of the parameters of all stages after it."""
        name, _ = circuit_in(model, self.name)
        parts = stages(model)
        place = next(number for number, stage in enumerate(parts) if name in stage.parameters)
        return frozenset({name, *(p for stage in parts[place + 1 :] for p in stage.parameters)})

    def hold(self, name: str, parameters: Tensors, memo: Memo, stream: Stream) -> Tensors:
        """The parameters with the original's angles wherever none was drawn."""
        return {**parameters, name: torch.where(memo["moves"], parameters[name], memo["origin"])}
