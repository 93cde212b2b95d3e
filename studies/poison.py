"""Repeats the MNIST curves of Chen and Zhang 2025 (arXiv 2508.02422) and sets theirs beside ours.

    python studies/poison.py                          # everything; about a quarter of an hour of processor time
    python studies/poison.py --inputs columns         # their inputs alone; what is there already is not computed again

Digit 1 against digit 9, 500 training and 1,000 validation images. Two kinds of curves, runs of different seeds:

- accuracy: validation accuracy after training on images of which a share (0 to 0.9) carries the wrong label, or is
  replaced by a Gaussian vector of norm 1, half of them from each class;
- unlearning: validation accuracy before every epoch of unlearning 30 % wrong labels.

`columns` are their inputs: the array (images, rows, columns) is normalised along its axis 1, so that every image column
that is not blank has norm 1, and an image the norm sqrt(columns that are not blank). Their simulator takes this vector
for a state as it is, so that an expectation value is that of the unit vector times the squared norm. `unit` are unit
vectors. The models are theirs (`qnn`; `mlp`, a classical network as they ran it) and a classical network of as many
weights as the circuit, trained and unlearned exactly as the circuit is (`twin`).

Read from their released code (github.com/yutuer21/quantum-machine-unlearning): the unlearned MLP has layers of 16 and
4, was trained by other settings than that of the accuracy curves, and is unlearned full batch; "Scrub" has no
distillation term. Where both files of MNIST are at hand, images are theirs: the first 250 of each class of the training
file, and the first 1,000 of the test file. Otherwise the first 250 of each class that are there, and the next 1,000.

Writes one CSV a part into --out, then comparison-*.csv, poison.svg and poison.png of all parts that are there. The
models and the data sets of `studies/poison.toml` are here, too.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor, nn

import qunlearn as qu
from qunlearn.data import available_datasets, register_dataset
from qunlearn.models import ClassicalTwin
from qunlearn.training.train import Trained, fit_all

PUBLISHED = Path(__file__).parent / "published"
DIGITS = (1, 9)
TRAIN, VALIDATION = 500, 1000
QUBITS, DEPTH = 10, 6
GAIN = 5.0  # of the last wire's expectation value, in their sigmoid
SHARES = tuple(round(0.1 * step, 1) for step in range(10))
FLIPPED = 0.3
EPOCHS = {"train": 100, "unlearn": 50}
WEIGHT = 0.2  # of the forget term
INPUTS, MODELS, CURVES = ("columns", "unit"), ("qnn", "mlp", "twin"), ("accuracy", "unlearning")
MARKS = (0, 10, 49)  # the epochs before which their curves are known
Settings = tuple[float, int]  # learning rate, batch size
ACCURACY: dict[str, Settings] = dict.fromkeys(MODELS, (0.005, 256))
ORIGINAL: dict[str, Settings] = {"qnn": (0.005, 256), "mlp": (0.01, 128), "twin": (0.005, 256)}
UNLEARN: dict[str, Settings] = {"qnn": (0.005, 256), "mlp": (0.001, 350), "twin": (0.005, 256)}
#: GA is L = CE_retain - 0.2 CE_forget: NegGrad+ with alpha = 1 / 1.2, times a factor that Adam does not see.
METHODS: dict[str, dict[str, Any]] = {
    "Finetune": {"name": "fine-tune"},
    "Scrub": {"name": "scrub", "variant": "chen-zhang", "beta": WEIGHT},
    "GA": {"name": "neggrad-plus", "alpha": 1 / (1 + WEIGHT)},
}


def normalised(images: Tensor, how: str) -> Tensor:
    """Images ``(n, 1, rows, columns)`` with columns of norm 1 (blank ones stay blank), or of norm 1 as a whole."""
    norms = images.norm(dim=2, keepdim=True) if how == "columns" else images.norm(dim=(2, 3), keepdim=True)
    scaled: Tensor = images / (norms + 1e-12)
    return scaled


def images_of(how: str) -> qu.Dataset:
    """All images of the two digits, normalised; class 0 is digit 1, class 1 digit 9."""
    data = qu.load_dataset("mnist")
    chosen = torch.isin(data.y, torch.tensor(DIGITS)).nonzero().flatten()
    part = data.select(chosen)
    labels = (part.y == DIGITS[1]).long()
    classes = [str(digit) for digit in DIGITS]
    return qu.Dataset(normalised(part.x, how), labels, ids=part.ids, classes=classes, name=f"mnist-1-9-{how}")


for _how in INPUTS:
    if f"mnist-1-9-{_how}" not in available_datasets():
        register_dataset(f"mnist-1-9-{_how}", lambda how=_how: images_of(how))  # type: ignore[misc]


def sets_of(data: qu.Dataset) -> tuple[qu.Dataset, qu.Dataset]:
    """Training and validation set; see the top of the file."""
    first = torch.cat([(data.y == number).nonzero().flatten()[: TRAIN // 2] for number in (0, 1)])
    left = torch.ones(len(data), dtype=torch.bool).index_fill(0, first, False)
    tested = left & (data.ids >= 60_000)  # what is left of the test file
    rest = (tested if tested.any() else left).nonzero().flatten()
    return data.select(first), data.select(rest[:VALIDATION])


class SmallAngles(qu.QuantumLayer):
    """A circuit whose weights start normal with standard deviation 0.01."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws every weight anew."""
        nn.init.normal_(self.weights, 0.0, 0.01, generator=generator)


class GlorotLinear(nn.Linear):
    """A linear layer as Keras starts it: weights uniform by Glorot and Bengio, no offsets."""

    def reset_parameters(self) -> None:
        """Draws every weight anew."""
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)


class Unnormalised(nn.Module):
    """Logits (0, 5 |x|^2 v), where v in [-1, 1] is what a circuit, or its twin, gives for x / |x|.

    For a circuit it is 5 <Z> of x as a state that is not normalised, as their simulator computes it; the probability
    of the second class is the sigmoid of that.
    """

    def __init__(self, quantum: nn.Module) -> None:
        super().__init__()
        self.quantum = quantum

    def forward(self, x: Tensor) -> Tensor:
        """Samples ``(batch, ...)`` to logits ``(batch, 2)``."""
        flat = x.flatten(1)
        squared = flat.square().sum(1)
        value = self.quantum(flat / squared.sqrt()[:, None])[:, 0]
        return logits_of(GAIN * squared * value)


class Perceptron(nn.Module):
    """Layers with ReLU and one output; inputs are padded with zeros to 1,024, as theirs are."""

    def __init__(self, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [2**QUBITS, *hidden]
        parts = [[GlorotLinear(a, b), nn.ReLU()] for a, b in itertools.pairwise(sizes)]
        self.layers = nn.Sequential(*(layer for part in parts for layer in part), GlorotLinear(sizes[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """Samples ``(batch, ...)`` to logits ``(batch, 2)``."""
        flat = x.flatten(1)
        padded = nn.functional.pad(flat, (0, 2**QUBITS - flat.shape[1]))
        return logits_of(cast(Tensor, self.layers(padded))[:, 0])


def logits_of(score: Tensor) -> Tensor:
    """Two logits whose softmax is (1 - sigmoid, sigmoid) of a score ``(batch,)``."""
    return torch.stack([torch.zeros_like(score), score], 1)


@cache
def circuit() -> qu.Circuit:
    """Their circuit for images of 784 pixels."""
    last = "I" * (QUBITS - 1) + "Z"
    return qu.load_circuit("rzz-ring", qubits=QUBITS, depth=DEPTH, features=784, observables=[last])


def qnn(inputs: tuple[int, ...] = (), classes: int = 2) -> nn.Module:
    """Their quantum network, 240 weights."""
    return Unnormalised(SmallAngles(circuit()))


def twin(inputs: tuple[int, ...] = (), classes: int = 2) -> nn.Module:
    """The classical network of as many weights in the circuit's place."""
    return Unnormalised(ClassicalTwin(circuit()))


def mlp(inputs: tuple[int, ...] = (), classes: int = 2) -> nn.Module:
    """Their classical network of the accuracy curves, 66,000 weights."""
    return Perceptron((64, 16))


def small_mlp(inputs: tuple[int, ...] = (), classes: int = 2) -> nn.Module:
    """Their classical network of the unlearning curves, 16,000 weights."""
    return Perceptron((16, 4))


FACTORIES: dict[str, Callable[[], nn.Module]] = {"qnn": qnn, "mlp": mlp, "twin": twin}
UNLEARNED: dict[str, Callable[[], nn.Module]] = {**FACTORIES, "mlp": small_mlp}


def corrupted(train: qu.Dataset, kind: str, share: float, seed: int) -> tuple[qu.Dataset, Tensor]:
    """The training set with a share of wrong labels (`flips`) or noise of norm 1 (`noise`), and their positions."""
    if not share:
        return train, torch.empty(0, dtype=torch.int64)
    spoilt = qu.Corruption(label_flips=share) if kind == "flips" else qu.Corruption(feature_noise=share)
    data, positions = spoilt.apply(train, seed)
    if kind == "flips":
        return data, positions
    x = data.x.clone()
    x[positions] = normalised(x[positions], "unit")
    return data.with_x(x), positions


@torch.no_grad()
def accuracy(model: nn.Module, data: qu.Dataset) -> float:
    """The share of samples that a model classifies rightly."""
    return float((model(data.x).argmax(1) == data.y).double().mean())


def trained(factory: Callable[[], nn.Module], data: qu.Dataset, settings: Settings, epochs: int, seed: int) -> Any:
    """A model from fresh weights; the last epoch is kept."""
    rate, batch = settings
    model = qu.reinitialise(factory(), seed)
    return qu.train(model, data, epochs=epochs, seed=seed, learning_rate=rate, batch_size=batch, progress=False)


def accuracy_rows(model: str, how: str, runs: int) -> Iterator[dict[str, Any]]:
    """The accuracy curves of one model, a row a run; without corruption both kinds are the same run."""
    train, validation = sets_of(qu.load_dataset(f"mnist-1-9-{how}"))
    for share in SHARES:
        for kind in ("flips", "noise"):
            for seed in range(runs):
                if kind == "flips" or share:
                    data = corrupted(train, kind, share, seed)[0]
                    found = trained(FACTORIES[model], data, ACCURACY[model], EPOCHS["train"], seed)
                    value = accuracy(found, validation)
                    row = {"model": model, "inputs": how, "share": share, "seed": seed, "accuracy": value}
                    yield from ({"corruption": k, **row} for k in (("flips", "noise") if not share else (kind,)))


def unlearning_rows(model: str, how: str, runs: int) -> Iterator[dict[str, Any]]:
    """The unlearning curves of one model, a row an epoch; every run has an original of its own."""
    train, validation = sets_of(qu.load_dataset(f"mnist-1-9-{how}"))
    (rate, batch), epochs = UNLEARN[model], EPOCHS["unlearn"]
    for seed in range(runs):
        data, positions = corrupted(train, "flips", FLIPPED, seed)
        kept = torch.ones(len(data), dtype=torch.bool).index_fill(0, positions, False).nonzero().flatten()
        forget, retain = data.select(positions), data.select(kept)
        original = trained(UNLEARNED[model], data, ORIGINAL[model], EPOCHS["train"], seed)
        curves = {"Retrain": retrained_curve(UNLEARNED[model], retain, validation, UNLEARN[model], epochs, seed)}
        for label, method in METHODS.items():
            table = {**method, "epochs": epochs, "learning_rate": rate, "batch_size": batch}
            result = qu.unlearn(
                original, forget, retain, validation=validation, method=table, seed=seed, progress=False
            )
            curves[label] = [candidate["validation_accuracy"] for candidate in result.record.candidates]
        for label, curve in curves.items():
            for epoch, value in enumerate(curve):
                row = {"model": model, "inputs": how, "method": label, "seed": seed}
                yield {**row, "epoch": epoch, "accuracy": value}


def retrained_curve(
    factory: Callable[[], nn.Module],
    retain: qu.Dataset,
    validation: qu.Dataset,
    settings: Settings,
    epochs: int,
    seed: int,
) -> list[float]:
    """Validation accuracy of a model trained on the retain set alone, before every epoch and after the last."""
    rate, batch = settings
    recipe = qu.Recipe(epochs=epochs, learning_rate=rate, batch_size=batch, keep="last")
    fresh = qu.reinitialise(factory(), 1000 + seed)
    (found,) = fit_all([fresh], retain, validation, recipe, seeds=[1000 + seed], progress=lambda *_: None)
    if not isinstance(found, Trained):
        raise found
    return [row["validation_accuracy"] for row in found.history]


ROWS = {"accuracy": accuracy_rows, "unlearning": unlearning_rows}


def compute(out: Path, curve: str, model: str, how: str, runs: int) -> None:
    """One part into its file, unless it is there."""
    path = out / f"{curve}-{model}-{how}.csv"
    if path.is_file():
        return
    begun = time.process_time()
    table = pd.DataFrame(list(ROWS[curve](model, how, runs)))
    table.to_csv(path.with_suffix(".part"), index=False)
    path.with_suffix(".part").rename(path)
    print(f"{path.name}: {time.process_time() - begun:.0f} s of processor time", flush=True)


def gathered(out: Path, curve: str) -> pd.DataFrame | None:
    """All parts of one kind of curves that are there."""
    parts = [path for m in MODELS for how in INPUTS if (path := out / f"{curve}-{m}-{how}.csv").is_file()]
    return pd.concat([pd.read_csv(path) for path in parts], ignore_index=True) if parts else None


def published(curve: str) -> pd.DataFrame:
    """Their values, one a row: what names the point, and ``published``."""
    table = pd.read_csv(PUBLISHED / f"poison-{curve}.csv", comment="#")
    names, column = (["corruption", "model"], "share") if curve == "accuracy" else (["model", "method"], "epoch")
    long = table.melt(id_vars=names, var_name=column, value_name="published")
    return long.assign(**{column: long[column].astype(float if curve == "accuracy" else int)})


def comparison(ours: pd.DataFrame, curve: str) -> pd.DataFrame:
    """Mean, standard deviation, least and greatest of our runs at every published point, theirs beside.

    ``inside`` says whether theirs, a mean of 5, lies among our runs.
    """
    names = ["corruption", "model", "share"] if curve == "accuracy" else ["model", "method", "epoch"]
    if curve == "unlearning":
        ours = ours[ours["epoch"].isin(MARKS)]
    grouped = ours.groupby([*names, "inputs"])["accuracy"].agg(["size", "mean", "std", "min", "max"]).reset_index()
    table = grouped.merge(published(curve), on=names, how="left").rename(columns={"size": "runs"})
    inside = (table["published"] >= table["min"] - 5e-4) & (table["published"] <= table["max"] + 5e-4)
    return table.assign(inside=inside.where(table["published"].notna()))


def draw(out: Path, tables: dict[str, pd.DataFrame]) -> None:
    """The figure: their means as crosses, ours as lines, the range of our runs shaded."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 10), layout="constrained")
    axes = figure.subplots(4, 3, sharey=True)
    for column, model in enumerate(MODELS):
        for row, kind in enumerate(("flips", "noise")):
            _draw_accuracy(axes[row, column], tables.get("accuracy"), model, kind)
        for row, how in enumerate(INPUTS, start=2):
            _draw_unlearning(axes[row, column], tables.get("unlearning"), model, how)
    for row in axes:
        row[0].set_ylabel("validation accuracy")
        fullest = max(row, key=lambda ax: len(ax.get_legend_handles_labels()[1]))
        if fullest.lines:
            fullest.legend(fontsize=7, loc="best")
    for kind in ("svg", "png"):
        figure.savefig(out / f"poison.{kind}", dpi=110, metadata={"Date": None} if kind == "svg" else None)


def _draw_accuracy(ax: Any, table: pd.DataFrame | None, model: str, kind: str) -> None:
    ax.set(title=f"{model}, {kind}", xlabel="corrupted share of the training set", ylim=(0, 1.03))
    for color, how in zip(("C0", "C1"), INPUTS, strict=True):
        if table is not None:
            rows = table[(table["model"] == model) & (table["corruption"] == kind) & (table["inputs"] == how)]
            _band(ax, rows, "share", color, f"ours, {how}")
    theirs = published("accuracy")
    theirs = theirs[(theirs["model"] == model) & (theirs["corruption"] == kind)]
    if len(theirs):
        ax.plot(theirs["share"], theirs["published"], "kx", label="published")


def _draw_unlearning(ax: Any, table: pd.DataFrame | None, model: str, how: str) -> None:
    ax.set(title=f"{model}, unlearning 30 % flips, {how}", xlabel="epochs", ylim=(0, 1.03))
    theirs = published("unlearning")
    for number, method in enumerate(("Retrain", *METHODS)):
        if table is not None:
            rows = table[(table["model"] == model) & (table["method"] == method) & (table["inputs"] == how)]
            _band(ax, rows, "epoch", f"C{number}", method)
        points = theirs[(theirs["model"] == model) & (theirs["method"] == method)]
        if how == "columns":
            ax.plot(points["epoch"], points["published"], "x", color=f"C{number}")


def _band(ax: Any, rows: pd.DataFrame, along: str, color: str, label: str) -> None:
    if len(rows):
        found = rows.groupby(along)["accuracy"].agg(["mean", "min", "max"])
        ax.plot(found.index, found["mean"], color=color, label=label)
        ax.fill_between(found.index, found["min"], found["max"], color=color, alpha=0.2, linewidth=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns the exit code."""
    parser = argparse.ArgumentParser(description="Repeat the MNIST curves of arXiv 2508.02422.")
    parser.add_argument("--out", type=Path, default=Path("runs/poison-published"), help="where the files go")
    parser.add_argument("--runs", type=int, default=5, help="runs of every point")
    parser.add_argument("--inputs", nargs="*", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--curves", nargs="*", choices=CURVES, default=list(CURVES))
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        for how in asked.inputs:
            for curve in asked.curves:
                for model in asked.models:
                    compute(asked.out, curve, model, how, asked.runs)
    except qu.QunlearnError as error:
        print(error, file=sys.stderr)
        return 2
    tables = {curve: table for curve in CURVES if (table := gathered(asked.out, curve)) is not None}
    if tables:
        draw(asked.out, tables)
    for curve, table in tables.items():
        found = comparison(table, curve)
        found.to_csv(asked.out / f"comparison-{curve}.csv", index=False)
        print(f"\n{curve}\n{found.to_string(index=False, float_format='{:.3f}'.format, na_rep='-')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
