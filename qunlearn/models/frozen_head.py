"""A linear one-vs-rest head over a frozen circuit: what convex unlearning takes."""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.models.hybrid import HybridClassifier
from qunlearn.quantum.layer import QuantumLayer

READINGS = ("expectations", "probabilities")
_SLACK = 1e-4  # by which rounding in float32 may lengthen a row
_CHUNK = 4096  # samples that the circuit takes at once


class FrozenHead(nn.Module):
    r"""Logits ``log sigmoid(W phi(x))``: one logistic regression a class over features that nothing trains.

    .. math:: \phi(x) = \frac{(\langle O_1 \rangle, \dots, \langle O_q \rangle, 1)}{\sqrt{q + 1}}
              \quad\text{or}\quad \phi(x) = (p_0, \dots, p_{2^r - 1}), \qquad \|\phi(x)\|_2 \le 1

    ``softmax`` of the logits are the classes' one-vs-rest probabilities, scaled to sum to 1; their order is that of the
    scores. Probabilities p are of the outcomes of measuring the wires that any observable touches in the
    computational basis. (All Z-string expectation values on those wires, scaled to norm 1, are these same features
    turned by an orthogonal matrix, so that a ridge penalty cannot tell the two apart.)

    Args:
        body: its encoder and its circuit (or twin) are taken, copied by nobody, and frozen; its head is not.
        features: ``"expectations"`` or ``"probabilities"``.

    Attributes:
        head: ``Linear(features, classes)`` without bias, float64 whatever the circuit's type.

    Raises:
        InputError: for a body that runs on a backend or with shots, whose features would differ from call to call;
            and for probabilities of a classical twin or of a noisy circuit.
    """

    recipe: Any = None
    trace: Any = None

    def __init__(
        self, body: HybridClassifier, features: Literal["expectations", "probabilities"] = "expectations"
    ) -> None:
        super().__init__()
        if features not in READINGS:
            raise UnknownNameError("reading of a circuit", features, READINGS)
        check_body(body, features)
        self._config = {"body": body.config(), "features": features}
        self.circuit, self.classes, self.features = body.circuit, body.classes, features
        self.encoder, self.quantum = body.encoder, body.quantum
        for parameter in (*self.encoder.parameters(), *self.quantum.parameters()):
            parameter.requires_grad_(False)
        device = next(body.parameters()).device
        self.head = nn.Linear(self.width, body.classes, bias=False, dtype=torch.float64, device=device)

    @property
    def width(self) -> int:
        """Entries of phi."""
        return len(self.circuit.observables) + 1 if self.features == "expectations" else 2 ** len(self._register)

    @property
    def _register(self) -> list[int]:
        return [n for n in range(self.circuit.qubits) if any(word[n] != "I" for word in self.circuit.observables)]

    def phi(self, x: Tensor | NDArray[Any]) -> Tensor:
        """Features ``(batch, width)`` of samples ``(batch, ...)``, float64, no row longer than 1."""
        rows = self._read(x)
        return cast(Tensor, rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp(min=1.0))

    @torch.no_grad()
    def checked_phi(self, x: Tensor) -> Tensor:
        """`phi` without derivatives, after making sure that rows are short because they are what they should be.

        Raises:
            UnsupportedError: for rows that are longer than 1 by more than rounding: then something is not an
                expectation value.
        """
        rows = torch.cat([self._read(part) for part in torch.split(x, _CHUNK)])
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        if not bool((norms <= 1 + _SLACK).all()):
            raise UnsupportedError(
                f"expected features of norm 1 at most, got {float(norms.max()):.6g}; check what the model runs as its "
                "circuit"
            )
        return cast(Tensor, rows / norms.clamp(min=1.0))

    def _read(self, x: Tensor | NDArray[Any]) -> Tensor:
        entry = next(self.quantum.parameters())
        encoded = self.encoder(torch.as_tensor(x, device=entry.device).to(entry.dtype))
        return self._expectations(encoded) if self.features == "expectations" else self._probabilities(encoded)

    def _expectations(self, encoded: Tensor) -> Tensor:
        values = self.quantum(encoded).double()
        return torch.cat([values, values.new_ones(len(values), 1)], 1) / math.sqrt(values.shape[1] + 1)

    def _probabilities(self, encoded: Tensor) -> Tensor:
        state = cast(QuantumLayer, self.quantum).state(encoded)
        shares = state.to(torch.complex128).abs().square()
        traced = [n + 1 for n in range(self.circuit.qubits) if n not in self._register]
        return (shares.sum(traced) if traced else shares).flatten(1)

    def forward(self, x: Tensor | NDArray[Any]) -> Tensor:
        """Logits ``(batch, classes)`` of samples ``(batch, ...)``, in the circuit's type."""
        return logsigmoid(self.head(self.phi(x))).to(next(self.quantum.parameters()).dtype)

    def stage_names(self) -> list[tuple[str, str]]:
        """See `stages`."""
        front = [("encoder", "encoder")] if any(True for _ in self.encoder.parameters()) else []
        return [*front, ("circuit", "quantum"), ("head", "head")]

    def config(self) -> dict[str, Any]:
        """All that `from_config` needs to build an equal model, but weights and dtype, as JSON values."""
        return dict(self._config)

    @classmethod
    def from_config(cls, config: dict[str, Any], *, dtype: torch.dtype | None = None) -> FrozenHead:
        """A freshly drawn model from what `config` gave; `dtype` is the circuit's."""
        return cls(HybridClassifier.from_config(config["body"], dtype=dtype), config["features"])


def check_body(body: nn.Module, features: str) -> HybridClassifier:
    """The model, refused if its circuit does not give the same features at every call; see `FrozenHead`.

    Raises:
        InputError: with the reason.
    """
    if not isinstance(body, HybridClassifier):
        raise InputError(
            f"expected a HybridClassifier, whose features are bounded by 1 each, got {type(body).__name__}; "
            "build one around your circuit"
        )
    layer = body.quantum
    if isinstance(layer, QuantumLayer) and layer.backend is not None:
        raise InputError(
            "expected a circuit that runs exactly, got one on a backend, with shots or by trajectories: its features "
            "would differ from call to call, and no bound on the gradient would hold"
        )
    if features == "probabilities" and not (isinstance(layer, QuantumLayer) and not layer.circuit.noisy):
        raise InputError(
            "expected a circuit without noise for outcome probabilities, got a classical twin or a noisy circuit; "
            "use features='expectations'"
        )
    return body
