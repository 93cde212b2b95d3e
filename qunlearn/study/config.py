"""What a study file may say: every key with its type, default and meaning.

`studies/reference.toml` is made from these classes. `qunlearn.study.reading` reads a file into them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PATTERNS = Literal["none", "linear", "reverse-linear", "ring", "all", "star", "pairs"]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A table of the file: unknown keys are refused and nothing is converted ("3" is no number)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DataConfig(Section):
    """Which samples, and how they are split."""

    dataset: str | None = Field("iris", description="name of a data set (`qunlearn list datasets`)")
    file: str | None = Field(None, description="a CSV file of your own instead; a path from the study file's folder")
    label: str | None = Field(None, description="with `file`: the column that holds the class")
    per_class: Positive | None = Field(None, description="samples kept of every class; all where not given")
    subset_seed: Annotated[int, Field(ge=0)] | Literal["split"] = Field(
        0, description='seed that picks those samples; "split": drawn anew with every split_seed'
    )
    split_seed: Annotated[int, Field(ge=0)] = Field(
        0, description="seed of split and forget request, or a list of them: one split each"
    )
    original_trains_on: Literal["auto", "train", "subset-retain"] = Field(
        "auto", description="published protocol: what trains the original; by itself as the paper did"
    )

    @model_validator(mode="before")
    @classmethod
    def _file_replaces_dataset(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("file") is not None:
            if data.get("dataset") is not None:
                raise ValueError("expected `dataset` or `file`, got both; remove one of them")
            if data.get("label") is None:
                raise ValueError("expected `label`, the column of `file` that holds the class, got none")
            return {**data, "dataset": None}
        if isinstance(data, dict) and data.get("label") is not None:
            raise ValueError("expected `file` beside `label`, got `label` alone")
        return data


class ModelConfig(Section):
    """The hybrid model: encoder, circuit, head."""

    encoder: Literal["none", "pca", "cnn"] = Field("none", description="from a sample to the circuit's features")
    head: Literal["shallow", "deep", "linear"] = Field("shallow", description="from expectation values to logits")
    circuit: str = Field("ring-cz", description="name of a circuit card (`qunlearn list circuits`), or a TOML file")
    qubits: Positive = Field(4, description="wires of the circuit")
    depth: Positive = Field(2, description="layers of the circuit")
    entanglement: PATTERNS | None = Field(None, description="pattern of the two-qubit gates; the card's own")
    circuit_encoding: str | None = Field(None, description="how features enter the circuit; the card's own")
    reupload: bool | None = Field(None, description="whether features enter before every layer; the card's own")
    control: Literal["twin", "frozen"] | None = Field(
        None, description='a control instead of the circuit: its classical "twin", or its weights "frozen"'
    )
    factory: str | None = Field(
        None, description='a model of your own, "module:function", called with (inputs, classes); replaces the rest'
    )


class TrainingConfig(Section):
    """How original and retrained models are trained."""

    epochs: Positive = Field(60, description="passes over the training set, at most")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="the optimiser (sgd with momentum 0.9)")
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(0.01, description="its step size")
    batch_size: Positive = Field(32, description="samples a step")
    patience: Positive | None = Field(None, description="stop after so many epochs without a better validation")
    weight_decay: NotNegative = Field(0.0, description="L2 penalty")
    keep: Literal["loss", "accuracy", "last"] = Field(
        "loss", description="epoch that is kept: lowest validation loss, highest validation accuracy, or the last"
    )


class TuningConfig(Section):
    """Search over the hyper-parameters that a method's entry in the grid leaves open."""

    budget: Annotated[int, Field(ge=0)] = Field(
        0, description="settings tried per method, the one given first, the same number for all; 0 and 1: no search"
    )


class RunConfig(Section):
    """On what the study runs. Of these only `workers` leaves every figure unchanged to the last bit."""

    dtype: Literal["float32", "float64"] = Field("float32", description="precision of models and data")
    device: str = Field("cpu", description='"cpu", "cuda" or "cuda:0"')
    engine: str = Field("auto", description="what runs the circuits (`qunlearn list engines`)")
    threads: Positive = Field(1, description="threads of every worker")
    together: Positive = Field(
        20, description="seeds computed at once, at most, where models allow it and gain by it; 1: one by one"
    )
    workers: Positive | None = Field(None, description="worker processes; cores divided by threads where not given")


class PluginsConfig(Section):
    """Code of your own."""

    modules: list[str] = Field(
        default_factory=list, description="Python modules imported first; they may register methods and data sets"
    )


class Settings(Section):
    """Everything that one cell of the grid holds fixed, the file's tables without the grid."""

    protocol: Literal["sound", "published"] = Field(
        "sound", description='"sound": disjoint sets; "published": as the paper did, flaws included'
    )
    retrained: Positive = Field(5, description="retrained models a split and request, at least 2 unless paired")
    paired: bool = Field(
        False, description="whether seed i meets the i-th retrained model alone, as in a paper with one of them"
    )
    data: DataConfig = Field(default_factory=lambda: DataConfig())
    model: ModelConfig = Field(default_factory=lambda: ModelConfig())
    training: TrainingConfig = Field(default_factory=lambda: TrainingConfig())
    tuning: TuningConfig = Field(default_factory=lambda: TuningConfig())
    run: RunConfig = Field(default_factory=lambda: RunConfig())
    plugins: PluginsConfig = Field(default_factory=lambda: PluginsConfig())

    @model_validator(mode="after")
    def _protocol_fits_data(self) -> Settings:
        if self.data.original_trains_on != "auto" and self.protocol != "published":
            raise ValueError(
                "expected no data.original_trains_on in the sound protocol, where the training set trains the "
                f'original, got {self.data.original_trains_on!r}; set protocol = "published" or remove the key'
            )
        return self

    @model_validator(mode="after")
    def _published_is_not_tuned(self) -> Settings:
        if self.protocol == "published" and self.tuning.budget:
            raise ValueError(
                "expected no tuning.budget in the published protocol, whose paper tuned nothing, "
                f'got {self.tuning.budget}; set protocol = "sound" or remove the key'
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON data, in the order of the file, with every default filled in."""
        data: dict[str, Any] = json.loads(self.model_dump_json())
        return data
