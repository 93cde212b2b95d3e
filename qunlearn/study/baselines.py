"""What logistic regression reaches on the data of a study: the figure that a quantum model has to be read beside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from qunlearn.data import Dataset, Split
from qunlearn.study.plan import Plan
from qunlearn.study.prepare import model_of, split_of
from qunlearn.study.task import Task, canonical, corruption_of


def baselines(plan: Plan) -> list[dict[str, Any]]:
    """One row for each set of features and each split that trains an original model which is reported.

    Columns: model, features ("inputs", or what a PCA encoder hands to the circuit), dataset, split_seed, corruption
    (only of a training set that was corrupted), samples (of the training set), accuracy_train and accuracy_test
    (shares, over all classes).
    """
    rows: dict[str, dict[str, Any]] = {}
    for task in plan.of("original"):
        if "corruption_seed" in task.settings["data"]:  # for tuning alone
            continue
        split = split_of(task.settings, task.request, str(plan.study.folder))
        for features, train, test in _features(task, split):
            data = task.settings["data"]
            key = canonical([features, data, task.settings["protocol"], split.original.fingerprint])
            if key not in rows:
                names = {"dataset": data["dataset"] or data["file"], "split_seed": data["split_seed"]}
                if spoilt := corruption_of(task.settings):
                    names["corruption"] = spoilt
                rows[key] = {"model": "logistic regression", "features": features, **names, **_fit(train, test)}
    return list(rows.values())


def _features(task: Task, split: Split) -> Iterator[tuple[str, Dataset, Dataset]]:
    yield "inputs", split.original, split.test
    model = task.settings["model"]
    if model["encoder"] != "pca" or model["factory"] is not None:
        return
    fitted: Any = model_of(task.settings, split.train, 0)
    fitted.fit(split.original.x)
    with torch.no_grad():
        encoded = [
            data.with_x(fitted.encoder(data.x.to(fitted.head.fc1.weight))) for data in (split.original, split.test)
        ]
    yield f"{model['qubits']} principal components", encoded[0], encoded[1]


def _fit(train: Dataset, test: Dataset) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    model.fit(train.x.flatten(1).double().cpu().numpy(), train.y.numpy())
    accuracies = {
        f"accuracy_{name}": float(model.score(data.x.flatten(1).double().cpu().numpy(), data.y.numpy()))
        for name, data in (("train", train), ("test", test))
    }
    return {"samples": len(train), **accuracies}
