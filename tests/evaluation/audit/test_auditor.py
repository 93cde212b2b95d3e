import copy
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qunlearn.data import Dataset, ForgetRequest, load_dataset
from qunlearn.errors import InputError, UnknownNameError
from qunlearn.evaluation.audit import AUDITS, REVISION, Audit, Auditor, Finding, audit
from qunlearn.models import Ensemble, HybridClassifier, QuantumKernelClassifier
from qunlearn.quantum import load_circuit
from tests.evaluation.audit.cases import Trained, hybrid, network

SOME = ("probes", "distances", "streisand")
QUICK = ("membership", "probes", "confusion", "distances", "streisand", "class_deletion")


def test_every_family_gives_findings_with_an_interval_around_the_value(digit: Trained) -> None:
    found = digit.auditor(digit.original)
    names = [finding.name for finding in found]
    assert len(set(names)) == len(names)
    for finding in found:
        if math.isnan(finding.value):
            assert finding.reason
            continue
        assert finding.low <= finding.value <= finding.high, finding
        assert finding.n > 0
        assert math.isnan(finding.retrained) or finding.retrained_low <= finding.retrained <= finding.retrained_high
        if finding.unit == "share" and not finding.name.endswith("_excess"):
            assert 0 <= finding.low <= finding.high <= 1, finding
    for family in AUDITS.values():
        assert family.doc
        assert family.cost
        assert len(digit.audit(digit.original, family.name)) > 0
    assert isinstance(REVISION, int)


def test_the_same_seed_gives_the_same_findings_and_leaves_the_models_alone() -> None:
    data = load_dataset("digits", per_class=15)
    split = data.split(ForgetRequest.of_class(3), seed=0)
    models = [hybrid(seed, qubits=2, depth=1).train() for seed in range(3)]
    before = [copy.deepcopy(model.state_dict()) for model in models]
    once, again = (audit(models[0], split, original=models[1]) for _ in range(2))
    assert str(once) == str(again)
    other = audit(models[0], split, audits=["probes"], seed=1)
    assert any(finding.value != once[finding.name].value for finding in other)
    assert all(part.training for model in models for part in model.modules())
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for model in models for parameter in model.parameters())


def test_one_auditor_says_of_every_model_what_audit_says(by_heart: Trained) -> None:
    auditor = by_heart.auditor
    for model in (network(3, 40, 2), by_heart.original, by_heart.retrained[1]):
        alone = audit(
            model, by_heart.split, original=by_heart.original, retrained=by_heart.retrained, audits=SOME, seed=4
        )
        assert str(auditor(model, audits=SOME, seed=4).to_dict()) == str(alone.to_dict())


def test_a_retrained_model_is_compared_with_the_others_alone(by_heart: Trained) -> None:
    first, *others = by_heart.retrained
    twin = copy.deepcopy(first)
    found = by_heart.audit(twin, "membership", "distances")
    alone = Auditor(by_heart.split, original=by_heart.original, retrained=others)(twin, audits=["distances"])
    values = [by_heart.audit(other, "membership")["membership_loss_auc"].value for other in others]
    assert found["membership_loss_auc"].retrained == pytest.approx(np.mean(values))
    assert found["membership_loss_auc"].retrained_low == min(values)
    name = "distance_function_forget"
    assert found[name].value == pytest.approx(alone[name].value)
    excess = found["membership_loss_auc_excess"]
    assert excess.value == pytest.approx(found["membership_loss_auc"].value - np.mean(values))
    assert excess.retrained_high == pytest.approx(
        max(value - np.mean([v for v in values if v is not value]) for value in values)
    )


def test_without_original_or_retrained_models_reasons_stand_in_their_place(by_heart: Trained) -> None:
    found = audit(by_heart.original, by_heart.split, audits=[*QUICK, "relearning", "information"])
    assert found["membership_before_after_auc"].reason == "no original model was given"
    assert "no original" in found["relearn_steps"].reason
    assert "no retrained model" in found["distances"].reason
    assert "needs the original" in found["idi"].reason
    assert all(math.isnan(finding.retrained) for finding in found)
    assert found["membership_loss_auc"].value > 0.9


def test_material_may_be_a_reason_why_there_is_none(by_heart: Trained) -> None:
    found = by_heart.auditor(
        by_heart.original, shadows="not among the best", population="none asked for", audits=["lira", "quality"]
    )
    assert {finding.reason for finding in found} == {"not among the best", "none asked for"}


def test_wrong_calls_are_refused_before_any_work(by_heart: Trained, digit: Trained) -> None:
    split, model = by_heart.split, by_heart.original
    with pytest.raises(UnknownNameError, match="did you mean 'membership'"):
        audit(model, split, audits=["probes", "membershp"])
    result: Any = SimpleNamespace(model=model)
    with pytest.raises(
        InputError, match=r"audited model: expected a torch module, got SimpleNamespace; .* its \.model"
    ):
        audit(result, split)
    with pytest.raises(InputError, match="original: expected a torch module"):
        audit(model, split, original=result)
    with pytest.raises(InputError, match="expected logits of shape"):
        Auditor(split, retrained=[nn.Linear(40, 1)])
    anything: Any = {"train": 1}
    with pytest.raises(InputError, match="expected a Split, got dict"):
        Auditor(anything)
    with pytest.raises(InputError, match="expected Shadows, or why there is none"):
        audit(model, split, shadows=anything)


def test_an_audit_is_a_table_and_a_dictionary() -> None:
    one = Finding("a", 0.5, 0.4, 0.6, 0.5, 0.5, 0.5, 10)
    found = Audit((one, Finding("b", math.nan, math.nan, math.nan, reason="there is none")))
    assert found["a"] is one
    assert "b" in found
    assert len(found) == 2
    assert list(found.table().columns) == [
        "name", "value", "low", "high", "retrained", "retrained_low", "retrained_high", "n", "unit", "reason",
    ]  # fmt: skip
    assert found.to_dict()["findings"][1]["reason"] == "there is none"
    with pytest.raises(UnknownNameError, match="expected the name of a finding, got 'c'"):
        found["c"]


def test_ensembles_and_kernel_classifiers_are_audited_as_far_as_it_goes() -> None:
    split = load_dataset("digits", per_class=15).split(ForgetRequest.of_class(3), seed=0)

    def member(seed: int) -> HybridClassifier:
        circuit = load_circuit("ring-cz", qubits=3, depth=1)
        generator = torch.Generator().manual_seed(seed)
        return HybridClassifier(circuit, 10, "pca", "linear", generator=generator).fit(split.train.x)

    ensembles = [Ensemble([member(seed), member(seed + 1)]) for seed in (0, 2)]
    families = ["membership", "probes", "information", "distances"]
    found = Auditor(split, original=ensembles[0], retrained=ensembles[1:])(ensembles[0], audits=families)
    assert not math.isnan(found["membership_gradient_norm_auc"].value)
    assert not math.isnan(found["zrf"].value)
    assert found["idi"].reason == "the model has no hidden stage, or several side by side"
    kernel = QuantumKernelClassifier(load_circuit("ring-cz", qubits=6, depth=1, encoding="amplitude"), 10)
    kernel.solve(split.train.x, split.train.y, split.train.ids)
    twins = [copy.deepcopy(kernel) for _ in range(2)]
    found = Auditor(split, original=kernel, retrained=twins)(copy.deepcopy(kernel), audits=[*families, "relearning"])
    assert found["distance_function_forget"].value == found["distance_function_forget"].retrained == 0
    assert "no parameters" in found["relearn_steps"].reason
    assert "cannot be initialised afresh" in found["zrf"].reason


def test_models_of_other_kinds_are_audited_too() -> None:
    random = np.random.default_rng(1)
    data = Dataset(random.normal(size=(120, 1, 6, 6)), np.arange(120) % 3)
    split = data.split(ForgetRequest.of_fraction(0.2), seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = [
            nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)
            )
            for _ in range(3)
        ]
    found = Auditor(split, original=models[0], retrained=models[1:])(models[0])
    for name in ("membership_gradient_norm_auc", "probe_rbf_hidden", "relearn_steps", "information_0", "zrf"):
        assert not math.isnan(found[name].value), found[name]
    assert "circuit" in found["holevo"].reason
