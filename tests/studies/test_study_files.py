"""Every study file that is kept parses and plans; those that need images say what is missing."""

from __future__ import annotations

from pathlib import Path

import pooch
import pytest
import torch

from qunlearn.data import Dataset, sources
from qunlearn.errors import InputError
from qunlearn.study.plan import make_plan
from qunlearn.study.reading import read_study

STUDIES = Path(__file__).parents[2] / "studies"
IMAGES = {"published-mnist", "published-fashion"}
# Images as well: see test_poison.py (by a plugin) and test_own_strategy.py.
OWN_DATA = {"poison", "own-strategy-mnist", "own-strategy-poison"}
#: The product of many lists, cut to one value of each, so that it is planned in seconds.
CUT = {
    "depth-entanglement": [
        '"model.entanglement"=["ring"]', '"model.reupload"=[true]', "model=[{depth=2},{depth=8,control=\"twin\"}]",
    ],
    "depth-entanglement-full": [
        'data.dataset="digits"', '"model.depth"=[2]', '"model.reupload"=[true]',
        'model=[{circuit="sim-15"},{circuit="sim-15-cz"}]',
    ],
    "sound-full": [
        'data.dataset=["digits"]', '"data.split_seed"=[0]', '"model.depth"=[2]', '"model.entanglement"=["ring"]',
        '"training.keep"=["last"]', "model=[{}]",
    ]
}  # fmt: skip
FILES = sorted(path.stem for path in STUDIES.glob("*.toml"))
#: Epochs of every method, on Iris and on images (released code of arXiv 2512.19253).
EPOCHS = {
    "GA": (15, 25), "Fisher": (15, 25), "NegGradPlus": (15, 25), "CF-k1": (15, 25), "EU-k1": (15, 25),
    "SCRUB": (50, 60), "SCRUB(+R)": (50, 60), "Certified": (5, 12), "Q-MUL": (5, 12), "LCA": (15, 25),
    "ADV-UNIFORM": (10, 15),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_study_files_parse(name: str) -> None:
    study = read_study(STUDIES / f"{name}.toml")
    assert study.name == ("reference" if name == "reference" else name)
    assert len(study.methods) >= 3


@pytest.mark.parametrize("name", sorted(set(FILES) - IMAGES - OWN_DATA))
def test_study_files_plan(name: str) -> None:
    study = read_study(STUDIES / f"{name}.toml", ["seed=[0, 1]", *CUT.get(name, [])])
    plan = make_plan(study)
    points = len(list(study.cells())) * len(study.requests)
    methods = points * (len(study.methods) - 1) - len(plan.left_out)
    assert len(plan.of("trial")) == methods * len(study.seeds) + points * study.settings.retrained


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_image_studies_plan_where_the_images_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = read_study(STUDIES / f"{name}.toml", ["data.split_seed=[0]"])
    data = study.settings.data
    assert data.per_class is not None
    assert data.dataset is not None
    classes = torch.arange(10).repeat_interleave(data.per_class)
    images = Dataset(torch.zeros(len(classes), 1, 28, 28), classes, name=data.dataset)
    monkeypatch.setitem(sources._REGISTERED, data.dataset, lambda: images)
    plan = make_plan(study)
    assert [len(plan.of(kind)) for kind in ("original", "retrained", "trial")] == [1, 2, 26]


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_image_studies_say_what_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.delenv("QUNLEARN_DATA", raising=False)
    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(InputError, match=r"connect to the network, or put .* in QUNLEARN_DATA"):
        make_plan(read_study(STUDIES / f"{name}.toml"))


@pytest.mark.parametrize("name", ["published-iris", "published-mnist", "published-fashion"])
def test_settings_are_the_published_ones(name: str) -> None:
    study = read_study(STUDIES / f"{name}.toml")
    iris = name == "published-iris"
    training = study.settings.training
    assert (training.epochs, training.patience) == ((100, 15) if iris else (60, 8))
    assert (training.batch_size, training.learning_rate) == ((32, 0.01) if iris else (64, 0.001))
    assert (training.optimizer, training.keep, study.settings.protocol) == ("adam", "accuracy", "published")
    assert study.requests == ({"fraction": 0.02}, {"class": 0})
    assert [choice.label for choice in study.methods[2:]] == list(EPOCHS)
    for choice in study.methods[2:]:
        patience = 15 if iris else 8 if choice.name == "scrub" else 6
        assert choice.parameters["patience"] == patience
        assert choice.parameters["epochs"] == EPOCHS[choice.label][0 if iris else 1]
    found = {(c.model.qubits, c.model.depth, c.model.head, c.model.encoder) for c in study.cells()}
    expected = {
        "published-iris": {(4, 6, "deep", "none"), (4, 2, "shallow", "none")},
        "published-mnist": {(8, 2, "shallow", "cnn")},
        "published-fashion": {(10, 2, "shallow", "cnn")},
    }
    assert found == expected[name]
