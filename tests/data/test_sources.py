"""Named data sets: against published numbers, and every way a file can be missing or damaged."""

import gzip
import os
import struct
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch

from qunlearn.data import Dataset, available_datasets, load_dataset, register_dataset, sources
from qunlearn.errors import CorruptFileError, DownloadError, InputError, UnknownNameError

FILES = [
    f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
]  # fmt: skip


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">{array.ndim + 1}i", 0x0800 + array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.mark.parametrize(
    ("name", "counts", "shape"),
    [
        ("iris", [50, 50, 50], (4,)),
        ("wine", [59, 71, 48], (13,)),
        ("breast-cancer", [212, 357], (30,)),
        ("digits", [178, 182, 177, 183, 181, 182, 181, 179, 174, 180], (1, 8, 8)),
    ],
)
def test_built_in_sets_have_the_published_sizes(name: str, counts: list[int], shape: tuple[int, ...]) -> None:
    data = load_dataset(name)
    assert data.y.bincount().tolist() == counts
    assert (data.name, tuple(data.x.shape[1:]), data.x.dtype) == (name, shape, torch.float32)
    assert len(data.classes) == len(counts)


def test_built_in_values_are_the_published_ones() -> None:
    iris, wine, digits = load_dataset("iris"), load_dataset("wine"), load_dataset("digits")
    assert iris.x.mean(0).tolist() == pytest.approx([5.8433, 3.0573, 3.7580, 1.1993], abs=1e-4)
    assert iris.classes == ("setosa", "versicolor", "virginica")
    assert wine.x[0, :3].tolist() == pytest.approx([14.23, 1.71, 2.43])
    assert (digits.x[0, 0, 0] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert (float(digits.x.min()), float(digits.x.max())) == (0.0, 1.0)


def test_unknown_names_and_too_many_samples_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'breast-cancer'"):
        load_dataset("breast_cancer")
    with pytest.raises(InputError, match="expected 1 to 50 samples a class, got 51"):
        load_dataset("iris", per_class=51)
    assert load_dataset("iris", per_class=7, seed=2).y.tolist() == [0] * 7 + [1] * 7 + [2] * 7


needs_mnist = pytest.mark.skipif("QUNLEARN_DATA" not in os.environ, reason="QUNLEARN_DATA names no folder with MNIST")


@needs_mnist
def test_mnist_from_files_already_there() -> None:
    data = load_dataset("mnist")
    test_images = data.select(data.ids >= 60_000)
    assert test_images.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert test_images.y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (float(data.x.min()), float(data.x.max()), data.x.shape[1:]) == (0.0, 1.0, (1, 28, 28))
    assert float(test_images.x.mean()) == pytest.approx(0.1325, abs=1e-4)


def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in FILES[2:]:
        write_idx(tmp_path / "mnist" / file, np.zeros((2, 28, 28) if "images" in file else 2))
    monkeypatch.setenv("QUNLEARN_DATA", str(tmp_path))
    with pytest.raises(CorruptFileError, match=r"expected md5 9fb629\w+ of .*t10k-images-idx3-ubyte\.gz, got"):
        load_dataset("mnist")
    (tmp_path / "mnist" / FILES[3]).unlink()
    with pytest.raises(InputError, match=r"expected t10k-labels-idx1-ubyte\.gz beside"):
        load_dataset("mnist")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_offline_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(pooch, "retrieve", fail)
    monkeypatch.setenv("QUNLEARN_DATA", str(tmp_path))  # a folder that holds nothing
    with pytest.raises(DownloadError, match=rf"put {FILES[0]}, .* into a folder '{name}' .* QUNLEARN_DATA"):
        load_dataset(name)


def test_a_download_takes_all_four_files_checked_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    arrays = {file: rng.integers(0, 10, (6, 28, 28) if "images" in file else 6) for file in FILES}
    asked = {}

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked[url] = known_hash
        write_idx(tmp_path / fname, arrays[fname])
        return str(tmp_path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.delenv("QUNLEARN_DATA", raising=False)
    data = load_dataset("fashion-mnist")
    assert asked["https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/" + FILES[1]] == (
        "md5:25c81989df183df01b3e8a0aad5dffbe"
    )
    assert len(asked) == 4
    assert data.y.tolist() == [*arrays[FILES[1]], *arrays[FILES[3]]]
    np.testing.assert_allclose(
        data.x[:, 0].numpy() * 255, np.concatenate([arrays[FILES[0]], arrays[FILES[2]]]), atol=1e-5
    )
    assert data.ids.tolist() == [*range(6), *range(60_000, 60_006)]
    assert data.classes[9] == "Ankle boot"


def test_a_download_with_another_checksum_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def retrieve(*_: object, **__: object) -> str:
        raise ValueError("MD5 hash of downloaded file does not match")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.delenv("QUNLEARN_DATA", raising=False)
    with pytest.raises(CorruptFileError, match="published files of mnist"):
        load_dataset("mnist")


@pytest.mark.parametrize("damage", ["cut", "magic", "plain", "empty"])
def test_an_idx_file_that_is_none_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    content = struct.pack(">2i", 0x0801 if damage != "magic" else 7, 4) + bytes(4)
    damaged = {
        "cut": gzip.compress(content[:-1]),
        "magic": gzip.compress(content),
        "plain": content,
        "empty": gzip.compress(b""),
    }[damage]
    path.write_bytes(damaged)
    with pytest.raises(CorruptFileError, match=r"expected a gzipped IDX file with 1 axes at .*labels\.gz"):
        sources.read_idx(path, axes=1)


def test_plugins_register_by_call_or_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_REGISTERED", dict(sources._REGISTERED))
    register_dataset("mine", lambda: Dataset([[0.0], [1.0]], [0, 1], name="mine"))
    assert load_dataset("mine").name == "mine"
    with pytest.raises(InputError, match="'mine', which is taken"):
        register_dataset("mine", lambda: load_dataset("iris"))
    plugin = types.ModuleType("plugin_of_a_test")
    plugin.load = lambda: Dataset([[5.0], [6.0]], [1, 0], name="theirs")  # type: ignore[attr-defined]
    plugin.wrong = lambda: [1, 2]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, plugin.__name__, plugin)
    points = [EntryPoint(name, f"{plugin.__name__}:{name}", "qunlearn.datasets") for name in ("load", "wrong")]
    monkeypatch.setattr(sources, "entry_points", lambda group: points)
    assert load_dataset("load").x.tolist() == [[5.0], [6.0]]
    with pytest.raises(InputError, match="expected a Dataset from the loader of 'wrong', got list"):
        load_dataset("wrong")
    assert {"iris", "mine", "load"} <= set(available_datasets())


def test_every_data_set_is_described_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_download", lambda name: pytest.fail("loaded"))
    described = available_datasets()
    assert set(described) >= {"iris", "wine", "breast-cancer", "digits", "mnist", "fashion-mnist"}
    assert described["digits"].startswith("1,797 handwritten digits")
