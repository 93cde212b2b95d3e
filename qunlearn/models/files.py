"""Model files: weights as safetensors, everything else as JSON; rebuilt without user code, never unpickled."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from qunlearn.errors import CorruptFileError, InputError, QunlearnError, UnsupportedError
from qunlearn.files import sha256, write_bytes
from qunlearn.models.ensemble import Ensemble
from qunlearn.models.frozen_head import FrozenHead
from qunlearn.models.hybrid import HybridClassifier
from qunlearn.models.kernel import QuantumKernelClassifier

FORMAT = 1
# Each gives `config()` and takes it back by `from_config(config, dtype=)`.
REBUILDABLE: dict[str, Any] = {
    "FrozenHead": FrozenHead,
    "HybridClassifier": HybridClassifier,
    "QuantumKernelClassifier": QuantumKernelClassifier,
}
_DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}


def save_model(model: nn.Module, path: str | os.PathLike[str], *, factory: str | None = None) -> Path:
    """Writes a model as two files, each whole or not at all, and returns the path of the JSON one.

    Args:
        model: one of our classifiers, or an `Ensemble` of them; or any module, if `factory` says how to make it
            (or an ensemble of such, if it says how to make a member).
        path: a folder (``model.safetensors`` and ``model.json`` in it), or a file name that ends in
            ``.safetensors`` or ``.json``.
        factory: for a module of your own, the name of the function that makes it, such as
            ``"mine:make_model"``. It is noted, never called: `load_model` fills a module that you give it.

    Raises:
        UnsupportedError: for a module that could not be rebuilt, without `factory`.
    """
    weights, card = model_files(model, factory=factory)
    weights_file, json_file = _files(path)
    json_file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(weights_file, weights)
    write_bytes(json_file, card)
    return json_file


def model_files(model: nn.Module, *, factory: str | None = None) -> tuple[bytes, bytes]:
    """What `save_model` writes: the contents of ``model.safetensors`` and of ``model.json``."""
    part = _part(model)
    if type(part) not in REBUILDABLE.values() and factory is None:
        raise UnsupportedError(
            f"expected a {' or a '.join(REBUILDABLE)}, got {type(part).__name__}, which cannot be rebuilt without its "
            "code; save it with factory='module:function' and load it with load_model(path, into=function())"
        )
    weights = save_tensors({name: t.detach().cpu().clone().contiguous() for name, t in model.state_dict().items()})
    card = _card(model, factory) | {"sha256": sha256(weights)}
    card["checksum"] = _checksum(card)
    lines = [f"{json.dumps(key)}: {json.dumps(card[key], sort_keys=True)}" for key in sorted(card)]
    return weights, ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def load_model(path: str | os.PathLike[str], *, into: nn.Module | None = None) -> nn.Module:
    """The model that `save_model` wrote, on the CPU, with ``.recipe`` as a dict if it had one.

    Args:
        path: as given to `save_model`.
        into: a module of your own, whose parameters and buffers are then filled, and which is returned; of an
            ensemble, what a member looks like.

    Raises:
        InputError: if there is no model at `path`, or `into` has other parameters.
        CorruptFileError: names a file that is damaged.
        UnsupportedError: for a module made by a factory, without `into`.
    """
    weights_file, json_file = _files(path)
    card = _read_card(json_file)
    state = _read_weights(weights_file, card)
    if into is not None:
        into = _assembled(into, card)
        try:
            into.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"expected a module with the parameters of {weights_file}, got another: {error}") from None
        model = into
    elif card["factory"] is not None:
        raise UnsupportedError(f"{json_file} was made by {card['factory']}; call that, and give its result as into=")
    else:
        model = _rebuild(card, state, json_file)
    if card["recipe"] is not None:
        model.recipe = card["recipe"]
    if card.get("removed_ids"):
        model.removed_ids = frozenset(card["removed_ids"])  # type: ignore[assignment]
    return model.train(card["training"])


def _card(model: nn.Module, factory: str | None) -> dict[str, Any]:
    """What the JSON file says of a model, apart from hashes."""
    part: Any = _part(model)
    ensemble = {"ensemble": {"size": len(model.members), "vote": model.vote}} if isinstance(model, Ensemble) else {}
    return {
        **ensemble,
        "format": FORMAT,
        "class": type(part).__name__,
        "config": part.config() if factory is None else None,
        "dtype": next((str(p.dtype).removeprefix("torch.") for p in model.parameters()), "float32"),
        "factory": factory,
        "recipe": _recipe(model),
        "removed_ids": sorted(getattr(model, "removed_ids", ())),  # what it was made to forget, request by request
        "training": model.training,
    }


def _part(model: nn.Module) -> nn.Module:
    """The model, or of an ensemble a member."""
    return model.members[0] if isinstance(model, Ensemble) else model


def _assembled(part: nn.Module, card: dict[str, Any]) -> nn.Module:
    """The module, or where the file holds an ensemble, one of as many copies as it has members."""
    ensemble = card.get("ensemble")
    if ensemble is None or isinstance(part, Ensemble):
        return part
    return Ensemble([copy.deepcopy(part) for _ in range(ensemble["size"])], vote=ensemble["vote"])


def _recipe(model: nn.Module) -> dict[str, Any] | None:
    """What the model says of its training, checked to be JSON."""
    recipe: Any = getattr(model, "recipe", None)
    if recipe is None:
        return None
    try:
        values: dict[str, Any] = dict(recipe) if isinstance(recipe, dict) else recipe.to_dict()
        json.dumps(values, allow_nan=False)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"expected model.recipe to be a dict of JSON values, got {recipe!r}") from error
    return values


def _rebuild(card: dict[str, Any], state: dict[str, Tensor], json_file: Path) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):
            part = REBUILDABLE[card["class"]].from_config(card["config"], dtype=_DTYPES[card["dtype"]])
        model = _assembled(part, card)
        model.load_state_dict(state)
    except (QunlearnError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CorruptFileError(f"{json_file}: expected a model that its weights fit, got {error}") from error
    return model


def _read_card(json_file: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads(json_file.read_bytes())
        checksum = card.pop("checksum")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"expected a model at {json_file}, got no such file") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CorruptFileError(f"{json_file}: expected the JSON of a model, got something else; {_REDO}") from error
    if checksum != _checksum(card):
        raise CorruptFileError(f"{json_file}: expected its own checksum, got another, so it was changed; {_REDO}")
    if card["format"] != FORMAT:
        raise UnsupportedError(f"{json_file}: expected format {FORMAT}, got {card['format']}; update qunlearn")
    return card


def _read_weights(weights_file: Path, card: dict[str, Any]) -> dict[str, Tensor]:
    try:
        content = weights_file.read_bytes()
    except FileNotFoundError:
        raise CorruptFileError(f"{weights_file}: expected the weights of a model, got no such file; {_REDO}") from None
    if sha256(content) != card["sha256"]:
        raise CorruptFileError(f"{weights_file}: expected SHA-256 {card['sha256'][:12]}..., got another; {_REDO}")
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise CorruptFileError(f"{weights_file}: expected safetensors, got {error}; {_REDO}") from error


_REDO = "save the model again"


def _checksum(card: dict[str, Any]) -> str:
    return sha256(json.dumps(card, sort_keys=True).encode())


def _files(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The files of weights and of JSON that a folder, or a name of either, stands for."""
    place = Path(path)
    stem = place if place.suffix in (".safetensors", ".json") else place / "model.safetensors"
    return stem.with_suffix(".safetensors"), stem.with_suffix(".json")
