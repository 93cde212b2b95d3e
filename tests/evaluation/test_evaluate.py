import dataclasses
import math
from collections.abc import Callable
from itertools import combinations, permutations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax
from scipy.stats import entropy
from sklearn.metrics import accuracy_score, roc_auc_score
from torch import nn

from qunlearn.data import Dataset, ForgetRequest, Split
from qunlearn.errors import InputError
from qunlearn.evaluation import Judge, evaluate, predict
from qunlearn.metrics import metric, misaligned
from qunlearn.metrics.composite import oracle_distance

Tables = Callable[..., nn.Module]
Splits = Callable[..., Split]

BANDS = ("_floor", "_floor_low", "_floor_high")
ACCURACIES = ["accuracy_retain", "accuracy_forget", "accuracy_test", "accuracy_validation"]
OWN = ["membership_auc", "helstrom_forget", "entropy_forget"]
RELATIVE = [f"{kind}_{part}" for kind in ("kl", "js", "agreement", "gap") for part in ("retain", "forget", "test")]
RELATIVE += ["tow", "oracle_distance", "weight_distance"]


def _keys(accuracies: list[str], own: list[str], relative: list[str]) -> set[str]:
    keys = {f"{prefix}{name}" for prefix in ("", "original_", "retrained_") for name in accuracies}
    keys |= {f"{name}{band}" for name in [*own, "uqi", *relative] for band in ("", *BANDS)}
    return keys | {f"{name}_original" for name in own}


def _p(model: nn.Module, numbers: torch.Tensor) -> Any:
    table: Any = model.table
    return softmax(table[numbers].numpy(), axis=1)


def _exactly(row: dict[str, float]) -> Any:
    """The same numbers, and NaN in the same places."""
    return pytest.approx(row, rel=0, abs=0, nan_ok=True)


def _everything(tables: Tables) -> dict[str, Any]:
    return {"original": tables(1), "retrained": [tables(seed) for seed in (2, 3, 4)]}


def test_keys_of_a_subset_request(tables: Tables, splits: Splits) -> None:
    row = evaluate(tables(0), splits(), **_everything(tables))
    assert set(row) == _keys(ACCURACIES, OWN, RELATIVE)


def test_keys_of_a_class_request(tables: Tables, splits: Splits) -> None:
    row = evaluate(tables(0), splits(ForgetRequest.of_class(1)), **_everything(tables))
    accuracies = [*ACCURACIES, "accuracy_test_forgotten"]
    assert set(row) == _keys(accuracies, OWN, RELATIVE)


def test_keys_under_published(tables: Tables, splits: Splits) -> None:
    extra = ["kl_retain_misaligned", "js_retain_misaligned"]
    row = evaluate(tables(0), splits(protocol="published"), **_everything(tables))
    assert set(row) == _keys(ACCURACIES, [*OWN, "membership_auc_published"], RELATIVE + extra)
    row = evaluate(tables(0), splits(ForgetRequest.of_class(0), "published"), **_everything(tables))
    assert set(row) == _keys(ACCURACIES, OWN, RELATIVE + extra)


@pytest.mark.parametrize("protocol", ["sound", "published"])
def test_every_figure_is_registered_and_in_its_range(tables: Tables, splits: Splits, protocol: str) -> None:
    for request in (None, ForgetRequest.of_class(1)):
        row = evaluate(tables(0), splits(request, protocol), **_everything(tables))
        assert all(metric(key).holds(value) for key, value in row.items())
        stateless = {key for key in row if key.startswith("helstrom_forget")}  # a table has no circuit
        assert {key for key, value in row.items() if not math.isfinite(value)} == stateless
        bare = evaluate(tables(0), splits(request, protocol))
        assert not any(metric(key).needs_retrained for key in bare)


def test_figures_against_scipy_and_scikit_learn(tables: Tables, splits: Splits) -> None:
    split, model, retrained = splits(), tables(0), [tables(seed) for seed in (2, 3, 4)]
    row = evaluate(model, split, original=tables(1), retrained=retrained)
    p, qs = _p(model, split.test.ids), [_p(other, split.test.ids) for other in retrained]
    assert row["accuracy_test"] == accuracy_score(split.test.y, p.argmax(1))
    assert row["kl_test"] == pytest.approx(np.mean([rel_entr(p, q).sum(1).mean() for q in qs]))
    assert row["js_test"] == pytest.approx(np.mean([(jensenshannon(p, q, axis=1) ** 2).mean() for q in qs]))
    assert row["agreement_test"] == pytest.approx(np.mean([(p.argmax(1) == q.argmax(1)).mean() for q in qs]))
    accuracies = [accuracy_score(split.test.y, q.argmax(1)) for q in qs]
    assert row["retrained_accuracy_test"] == pytest.approx(np.mean(accuracies))
    assert row["gap_test"] == pytest.approx(abs(row["accuracy_test"] - np.mean(accuracies)))
    assert row["tow"] == pytest.approx(math.prod(1 - row[f"gap_{part}"] for part in ("retain", "forget", "test")))
    drops = {part: row[f"original_accuracy_{part}"] - row[f"accuracy_{part}"] for part in ("retain", "forget", "test")}
    assert row["uqi"] == pytest.approx(drops["forget"] - drops["retain"] / 2 - drops["test"] / 2)
    assert row["entropy_forget"] == pytest.approx(np.mean(entropy(_p(model, split.forget.ids), axis=1)))


def test_membership_is_judged_against_class_matched_holdout_samples(tables: Tables, splits: Splits) -> None:
    split, model = splits(), tables(0)  # forget: samples 0, 2, 4, of classes 0, 2, 1
    row = evaluate(model, split, original=tables(1))
    scores = np.concatenate([_p(model, part.ids).max(1) for part in (split.forget, split.holdout)])
    counts = torch.bincount(split.holdout.y)[split.holdout.y]
    truth = roc_auc_score([1] * 3 + [0] * 10, scores, sample_weight=np.concatenate([np.ones(3), 1 / counts]))
    assert row["membership_auc"] == pytest.approx(truth)
    assert row["membership_auc_original"] != row["membership_auc"]


def test_floors_are_the_retrained_models_own_figures(tables: Tables, splits: Splits) -> None:
    split, retrained = splits(), [tables(seed, weights=(seed, 0.0)) for seed in (2, 3, 5)]
    row = evaluate(tables(0), split, original=tables(1), retrained=retrained)
    p = [_p(model, split.forget.ids) for model in retrained]
    pairs = {(i, j): rel_entr(p[i], p[j]).sum(1).mean() for i, j in permutations(range(3), 2)}
    each = [np.mean([value for (i, _), value in pairs.items() if i == k]) for k in range(3)]
    assert row["kl_forget_floor"] == pytest.approx(np.mean(list(pairs.values())))
    assert (row["kl_forget_floor_low"], row["kl_forget_floor_high"]) == pytest.approx((min(each), max(each)))
    # distances 1, 3, 2 between weights 2, 3, 5: means 2, 1.5, 2.5
    bands = [row[f"weight_distance{band}"] for band in BANDS]
    assert bands == pytest.approx([2.0, 1.5, 2.5])
    accuracies = [accuracy_score(split.forget.y, q.argmax(1)) for q in p]
    gaps = [abs(a - np.mean([b for j, b in enumerate(accuracies) if j != i])) for i, a in enumerate(accuracies)]
    assert row["gap_forget_floor"] == pytest.approx(np.mean(gaps))
    aucs = [evaluate(model, split)["membership_auc"] for model in retrained]
    found = [row[f"membership_auc{band}"] for band in BANDS]
    assert found == pytest.approx([np.mean(aucs), min(aucs), max(aucs)])


def test_floors_do_not_depend_on_order_nor_on_the_judged_model(tables: Tables, splits: Splits) -> None:
    split, everything = splits(), _everything(tables)
    row = evaluate(tables(0), split, **everything)
    everything["retrained"].reverse()
    other = evaluate(tables(9), split, **everything)
    floors = [key for key in row if key.endswith(BANDS)]
    assert len(floors) == 57
    assert [row[key] for key in floors] == pytest.approx([other[key] for key in floors], nan_ok=True)
    # of two retrained models each is the other's whole reference: a symmetric figure has no spread
    two = evaluate(tables(0), split, retrained=everything["retrained"][:2])
    assert two["js_test_floor_low"] == pytest.approx(two["js_test_floor_high"])
    assert two["kl_test_floor_low"] < two["kl_test_floor_high"]


def _js(one: Any, other: Any) -> float:
    return float(np.mean(jensenshannon(one, other, axis=1) ** 2))


def test_the_oracle_distance_is_in_units_of_the_retrained_models_own(tables: Tables, splits: Splits) -> None:
    split, everything = splits(), _everything(tables)
    row = evaluate(tables(0), split, **everything)

    def ratio(model: nn.Module, references: list[nn.Module]) -> float:
        parts = []
        for numbers in (split.forget.ids, split.retain.ids, split.test.ids):
            p, qs = _p(model, numbers), [_p(other, numbers) for other in references]
            own = np.mean([_js(one, other) for one, other in combinations(qs, 2)])
            parts.append(np.mean([_js(p, q) for q in qs]) / own)
        return float(np.mean(parts))

    retrained = everything["retrained"]
    assert row["oracle_distance"] == pytest.approx(ratio(tables(0), retrained))
    floors = [ratio(one, [other for other in retrained if other is not one]) for one in retrained]
    assert row["oracle_distance_floor_low"] == pytest.approx(min(floors))
    assert row["oracle_distance_floor_high"] == pytest.approx(max(floors))
    assert row["oracle_distance_floor"] == pytest.approx(np.mean(floors))
    two = evaluate(tables(0), split, retrained=retrained[:2])
    assert two["oracle_distance"] == pytest.approx(ratio(tables(0), retrained[:2]))
    assert math.isnan(two["oracle_distance_floor"])
    assert math.isnan(evaluate(tables(0), split, retrained=[retrained[0]] * 2)["oracle_distance"])
    assert oracle_distance([0.0, 0.2], [0.0, 0.1]) == 1.5


def test_corrupted_samples_are_also_judged_by_their_true_labels(tables: Tables, splits: Splits) -> None:
    whole = splits()
    flipped = Dataset(whole.forget.x, (whole.forget.y + 1) % 3, whole.forget.ids, whole.train.classes)
    x, y, ids = (torch.cat(pair) for pair in zip(*((d.x, d.y, d.ids) for d in (flipped, whole.retain)), strict=True))
    split = dataclasses.replace(
        whole,
        train=Dataset(x, y, ids, whole.train.classes),
        forget=flipped,
        request=ForgetRequest.of_corrupted(),
        uncorrupted=whole.forget,
    )
    row = evaluate(tables(0), split, original=tables(1), retrained=[tables(2), tables(3)])
    numbers = split.forget.x[:, 0].long()
    for key, models in (("", [tables(0)]), ("original_", [tables(1)]), ("retrained_", [tables(2), tables(3)])):
        found = [accuracy_score(numbers % 3, _p(model, numbers).argmax(1)) for model in models]
        assert row[f"{key}accuracy_forget_true"] == pytest.approx(np.mean(found))
        wrong = [accuracy_score(split.forget.y, _p(model, numbers).argmax(1)) for model in models]
        assert row[f"{key}accuracy_forget"] == pytest.approx(np.mean(wrong))
    assert (split.forget.y != numbers % 3).all()
    assert "accuracy_forget_true" not in evaluate(tables(0), whole)


def test_too_few_retrained_models(tables: Tables, splits: Splits) -> None:
    one = evaluate(tables(0), splits(), original=tables(1), retrained=[tables(2)])
    assert math.isnan(one["kl_test_floor"])
    assert math.isnan(one["tow_floor_high"])
    assert one["membership_auc_floor"] == one["membership_auc_floor_low"]
    none = evaluate(tables(0), splits(), original=tables(1))
    assert not any("floor" in key or key.startswith(("retrained_", "kl_", "gap_", "tow")) for key in none)
    assert "uqi" in none
    assert "uqi" not in evaluate(tables(0), splits())


def test_the_original_and_a_retrained_model_judged_themselves(tables: Tables, splits: Splits) -> None:
    split, everything = splits(), _everything(tables)
    row = evaluate(everything["original"], split, **everything)
    assert row["uqi"] == 0
    assert row["accuracy_forget"] == row["original_accuracy_forget"]
    first, *others = everything["retrained"]
    row = evaluate(first, split, **everything)
    assert row == _exactly(evaluate(predict(first, split), split, **everything))
    assert row["kl_test"] == pytest.approx(evaluate(first, split, retrained=others)["kl_test"])
    assert row["kl_test"] > 0
    assert row["kl_test_floor"] == pytest.approx(evaluate(tables(0), split, **everything)["kl_test_floor"])


def test_class_request_reports_the_forgotten_class_apart(tables: Tables, splits: Splits) -> None:
    split, model, retrained = splits(ForgetRequest.of_class(1)), tables(0), [tables(2), tables(3)]
    row = evaluate(model, split, original=tables(1), retrained=retrained)
    kept = split.test.ids[split.test.y != 1]
    p, qs = _p(model, kept), [_p(other, kept) for other in retrained]
    assert row["accuracy_test"] == accuracy_score(kept % 3, p.argmax(1))
    assert row["kl_test"] == pytest.approx(np.mean([rel_entr(p, q).sum(1).mean() for q in qs]))
    gone = split.test.ids[split.test.y == 1]
    assert row["accuracy_test_forgotten"] == accuracy_score(gone % 3, _p(model, gone).argmax(1))
    kept = split.validation.ids[split.validation.y != 1]
    assert row["accuracy_validation"] == accuracy_score(kept % 3, _p(model, kept).argmax(1))
    # the attack compares the forgotten class with holdout samples of that class
    members, others = (part.ids[part.y == 1] for part in (split.forget, split.holdout))
    scores = np.concatenate([_p(model, numbers).max(1) for numbers in (members, others)])
    assert row["membership_auc"] == pytest.approx(roc_auc_score([1] * len(members) + [0] * len(others), scores))


def test_published_keeps_all_classes_and_clips(tables: Tables, splits: Splits) -> None:
    split, model, other = splits(ForgetRequest.of_class(1), "published"), tables(0, scale=40), tables(2, scale=40)
    row = evaluate(model, split, retrained=[other])
    assert row["accuracy_test"] == accuracy_score(split.test.y, _p(model, split.test.ids).argmax(1))
    for part in (split.test, split.retain):
        p, q = (np.maximum(_p(m, part.ids), 1e-8) for m in (model, other))
        name = "test" if part is split.test else "retain"
        assert row[f"kl_{name}"] == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-6)
    shuffled = misaligned(q, np.random.default_rng(split.seed))
    assert row["kl_retain_misaligned"] == pytest.approx((p * np.log(p / shuffled)).sum(1).mean(), rel=1e-6)
    assert row["kl_retain_misaligned"] != pytest.approx(row["kl_retain"], rel=1e-3)


def test_published_takes_non_members_from_the_test_set_and_the_papers_from_the_retain_set(
    tables: Tables, splits: Splits
) -> None:
    split, model = splits(protocol="published"), tables(0)
    row = evaluate(model, split)
    scores = np.concatenate([_p(model, part.ids).max(1) for part in (split.forget, split.test)])
    counts = torch.bincount(split.test.y)[split.test.y]
    truth = roc_auc_score([1] * 3 + [0] * 10, scores, sample_weight=np.concatenate([np.ones(3), 1 / counts]))
    assert row["membership_auc"] == pytest.approx(truth)
    drawn = split.retain.ids[np.random.default_rng(0).permutation(len(split.retain))[:3]]
    scores = np.concatenate([_p(model, numbers).max(1) for numbers in (split.forget.ids, drawn)])
    assert row["membership_auc_published"] == pytest.approx(roc_auc_score([1] * 3 + [0] * 3, scores))


def test_predictions_and_models_give_the_same_figures(tables: Tables, splits: Splits) -> None:
    split, everything = splits(), _everything(tables)
    original, retrained = predict(everything["original"], split), [predict(m, split) for m in everything["retrained"]]
    row = evaluate(predict(tables(0), split), split, original=original, retrained=retrained)
    assert row == _exactly(evaluate(tables(0), split, **everything))


def test_predictions_of_another_split_are_refused(tables: Tables, splits: Splits) -> None:
    stored = predict(tables(0), splits())
    with pytest.raises(InputError, match="retrained: expected predictions of the split's forget set"):
        evaluate(tables(0), splits(ForgetRequest.of_class(0)), retrained=[stored])


def test_the_result_of_unlearn_is_refused_with_the_way_out(tables: Tables, splits: Splits) -> None:
    result: Any = SimpleNamespace(model=tables(0))
    with pytest.raises(InputError, match=r"got SimpleNamespace; for the result of unlearn give its \.model"):
        evaluate(result, splits())


@pytest.mark.parametrize("protocol", ["sound", "published"])
def test_one_judge_says_of_every_model_what_evaluate_says(splits: Splits, tables: Tables, protocol: str) -> None:
    split, beside = splits(protocol=protocol), _everything(tables)
    judge = Judge(split, **beside)
    for model in (tables(0), tables(7), beside["retrained"][0], tables(0)):
        assert judge(model) == pytest.approx(evaluate(model, split, **beside), abs=0, nan_ok=True)
