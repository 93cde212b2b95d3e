"""What a study file may say: every key with its type, default and meaning.

`studies/reference.toml` is made from these classes. `qunlearn.study.reading` reads a file into them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qunlearn.study.task import CORRUPTION

PATTERNS = Literal["none", "linear", "reverse-linear", "ring", "all", "star", "pairs"]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Duration = Annotated[float, Field(gt=0, allow_inf_nan=False)]


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
    shares: Annotated[list[Positive], Field(min_length=4, max_length=4)] | None = Field(
        None, description="sound protocol: per cent for train, validation, test and holdout set; [60, 10, 15, 15]"
    )
    label_flips: Share = Field(0.0, description="share of the training samples that get a wrong label")
    feature_noise: Share = Field(0.0, description="share of the training samples whose input becomes noise")
    swap: Annotated[list[int | str | float], Field(min_length=3, max_length=3)] | None = Field(
        None, description="[a, b, share]: that share of the training samples of classes a and b swaps labels"
    )

    @property
    def corruption(self) -> dict[str, Any]:
        """What is spoilt in the training set, as `qunlearn.data.Corruption` takes it; empty where nothing is."""
        return {key: getattr(self, key) for key in CORRUPTION if getattr(self, key)}

    @model_validator(mode="after")
    def _corruption_is_one(self) -> DataConfig:
        from qunlearn.data import Corruption
        from qunlearn.errors import QunlearnError

        try:
            Corruption.of(self.corruption)
        except QunlearnError as error:
            raise ValueError(str(error)) from None
        return self

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
    hidden: Positive | None = Field(None, description="width of the shallow head's hidden layer; 16, after a cnn 32")
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
    shots: Annotated[int, Field(ge=0)] = Field(
        0, description="measurements of every circuit; 0: exact expectation values (see `noise.during`)"
    )
    backend: str | None = Field(
        None, description='what runs the circuits in the engine\'s place, such as "lightning.qubit" or "aer"'
    )
    workers: Positive | None = Field(None, description="worker processes; cores divided by threads where not given")


class ClusterConfig(Section):
    """Workers of `qunlearn run --on dask`, where no running scheduler is named; no figure depends on them."""

    system: Literal["local", "slurm", "pbs", "lsf"] = Field(
        "local", description='who starts them: "local": this machine; or a queueing system, by jobs'
    )
    jobs: Positive = Field(1, description="jobs to ask for")
    workers: Positive = Field(1, description="worker processes of a job, each with `run.threads` cores")
    memory: str = Field("4GB", description="memory of a job")
    walltime: str | None = Field(None, description='longest time of a job, such as "02:00:00"; the system\'s own')
    queue: str | None = Field(None, description="queue or partition; the system's own")
    account: str | None = Field(None, description="account (lsf: project) that pays; the system's own")
    interface: str | None = Field(None, description='network interface that all machines share, such as "ib0"')
    setup: list[str] = Field(
        default_factory=list, description="shell lines before a worker starts: modules to load, an environment"
    )
    options: list[str] = Field(
        default_factory=list, description='further options of a job, such as "--gres=gpu:1" for slurm'
    )


class NoiseConfig(Section):
    """Noise of the circuits; there is none unless a strength is above 0, or a device or relaxation times are given."""

    depolarizing: Strength = Field(0.0, description="probability that a gate leaves its qubits fully mixed")
    amplitude_damping: Strength = Field(0.0, description="probability that an excited qubit falls back to 0")
    phase_damping: Strength = Field(0.0, description="probability that a qubit loses its phase")
    bit_flip: Strength = Field(0.0, description="probability that a qubit is flipped")
    phase_flip: Strength = Field(0.0, description="probability that the phase of a qubit is flipped")
    t1: Duration | None = Field(None, description="relaxation time in microseconds; with `t2` and `gate_time`")
    t2: Duration | None = Field(None, description="dephasing time in microseconds, at most twice `t1`")
    gate_time: NotNegative | None = Field(None, description="how long qubits relax at every place, in microseconds")
    readout: Strength = Field(0.0, description="probability that a measured bit is read wrong")
    after: str | None = Field(
        None,
        description='where noise strikes: after every "gate", "one-qubit", "two-qubit", a gate by its name, after the '
        '"encoding", every "layer", or once at the "start" or "end"; where the card says, or else after "two-qubit"',
    )
    device: str | None = Field(
        None, description='a fake backend, such as "fake_manila", whose calibration is the noise, alone'
    )
    during: Literal["evaluation", "all"] = Field(
        "evaluation",
        description='what noise, shots and backend bear on: "evaluation": predictions of models that were trained and '
        'unlearned exactly; "all": training and unlearning, too',
    )

    @property
    def strikes(self) -> bool:
        """Whether there is any noise."""
        shares = ("depolarizing", "amplitude_damping", "phase_damping", "bit_flip", "phase_flip", "readout")
        return any(getattr(self, name) for name in (*shares, "gate_time", "device"))

    @model_validator(mode="after")
    def _relaxation_is_whole(self) -> NoiseConfig:
        given = {name: getattr(self, name) for name in ("t1", "t2", "gate_time")}
        if missing := [name for name, value in given.items() if value is None]:
            if len(missing) < len(given):
                raise ValueError(f"expected `t1`, `t2` and `gate_time` together, got no {' and no '.join(missing)}")
        elif given["t2"] > 2 * given["t1"]:
            raise ValueError(f"expected t2 of at most 2 t1 = {2 * given['t1']:g}, got {given['t2']:g}")
        return self

    @model_validator(mode="after")
    def _device_is_alone(self) -> NoiseConfig:
        if self.device is not None and NoiseConfig(**self.model_dump(exclude={"device", "during"})).strikes:
            raise ValueError(
                f"expected a device or strengths, got {self.device!r} and strengths; the calibration of a device is "
                "all of its noise, so remove one of the two"
            )
        return self


class AuditConfig(Section):
    """Attacks on and probes of the unlearned models, and of the retrained ones beside them."""

    families: list[str] = Field(
        default_factory=list, description='which (`qunlearn list audits`), or ["all"]; none: no audits'
    )
    seeds: Annotated[int, Field(ge=0)] = Field(0, description="how many of the seeds are audited, the first; 0: all")
    shadows: Annotated[int, Field(ge=0)] = Field(
        0, description="shadow models of every request but those for a class, an even number; 0: none"
    )
    quality: Annotated[int, Field(ge=0)] = Field(
        0, description="unlearned and as many retrained models for forgetting quality, at least 64; 0: none"
    )
    best: Positive = Field(
        5, description="methods with shadow models and forgetting quality: so many that validation ranks best"
    )
    controls: bool = Field(
        True, description="whether controls (model.control) have shadow models and forgetting quality, too"
    )

    @model_validator(mode="after")
    def _numbers_suffice(self) -> AuditConfig:
        if self.shadows and (self.shadows < 6 or self.shadows % 2):  # two on each side of a sample, but for one
            raise ValueError(f"expected shadows as an even number of at least 6, or 0, got {self.shadows}")
        if 0 < self.quality < 64:
            raise ValueError(f"expected quality of at least 64, or 0, got {self.quality}")
        if (self.shadows or self.quality) and not self.families:
            raise ValueError('expected audit.families beside shadows and quality, got none; ["all"] takes every one')
        return self


class PluginsConfig(Section):
    """Code of your own."""

    modules: list[str] = Field(
        default_factory=list, description="Python modules imported first; they may register methods and data sets"
    )


_ONLY_WHERE_SET = {"data": (*CORRUPTION, "shares"), "model": ("hidden",), "run": ("shots", "backend")}
_MANY = ("shadows", "quality")


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
    cluster: ClusterConfig = Field(default_factory=lambda: ClusterConfig())
    noise: NoiseConfig = Field(default_factory=lambda: NoiseConfig())
    audit: AuditConfig = Field(default_factory=lambda: AuditConfig())
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

    @model_validator(mode="after")
    def _shares_fit(self) -> Settings:
        if self.data.shares is not None and (self.protocol == "published" or sum(self.data.shares) != 100):
            raise ValueError(f"expected data.shares that sum to 100, in the sound protocol, got {self.data.shares}")
        return self

    @model_validator(mode="after")
    def _published_is_clean(self) -> Settings:
        asked = [f"data.{key}" for key in self.data.corruption] + [
            f"audit.{k}" for k in _MANY if getattr(self.audit, k)
        ]
        if self.protocol == "published" and asked:
            raise ValueError(
                f"expected no {asked[0]} in the published protocol, which repeats an experiment as it was; "
                'set protocol = "sound" or remove the key'
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON data, in the order of the file, with every default filled in.

        But of noise, audits, and some keys of other tables only what is set: a study without them is what it was
        before they could be. Nothing of the cluster, on which nothing depends.
        """
        data: dict[str, Any] = json.loads(self.model_dump_json(exclude={"cluster"}))
        for table in ("noise", "audit"):
            data[table] = json.loads(getattr(self, table).model_dump_json(exclude_defaults=True))
            if not data[table]:
                del data[table]
        for table, keys in _ONLY_WHERE_SET.items():
            data[table] = {key: value for key, value in data[table].items() if value or key not in keys}
        return data

    def settled(self) -> dict[str, Any]:
        """`to_dict` of one cell of a grid: what bears on nothing there is left out, so that equal cells are equal.

        Audits are none of it: they look at results and change none.

        ``noise`` holds what is not zero, ``after`` where something strikes there, and ``during`` where there is
        noise, or shots or a backend; nothing is left of it in a cell that computes exactly.
        """
        data = self.to_dict()
        data.pop("audit", None)
        found = data.pop("noise", {})
        idle = {"after", "during"} if self.noise.gate_time else {"after", "during", "t1", "t2"}
        kept = {key: value for key, value in found.items() if value and key not in idle}
        if self.noise.after and set(kept) - {"device", "readout"}:
            kept["after"] = self.noise.after
        if kept or self.run.shots or self.run.backend:
            data["noise"] = {**kept, "during": self.noise.during}
        elif data["run"]["engine"] == "trajectories":
            data["run"]["engine"] = "auto"
        return data
