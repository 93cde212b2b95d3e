"""Named data sets: built into scikit-learn, downloaded once, or registered by plugins."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qunlearn.data.dataset import Dataset
from qunlearn.errors import CorruptFileError, DownloadError, InputError, UnknownNameError

Loader = Callable[[], Dataset]

_URLS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
}
_MD5 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_FIRST_ID = {"train": 0, "t10k": 60_000}  # an image keeps its id whichever of the files are there


def load_dataset(name: str, per_class: int | None = None, seed: int = 0) -> Dataset:
    """A data set by name: tables raw ``(samples, features)``, images in [0, 1] ``(samples, 1, height, width)``.

    Args:
        name: one of `available_datasets`.
        per_class: keep so many random samples of every class (`Dataset.per_class`); all by default.
        seed: for that choice.

    Raises:
        UnknownNameError: no such data set.
        InputError: more samples a class than there are.
        DownloadError: the files are neither there nor to be had.
        CorruptFileError: a file that is not what was published.
    """
    loaders = _loaders()
    if name not in loaders:
        raise UnknownNameError("data set", name, loaders)
    data = loaders[name]()
    if not isinstance(data, Dataset):
        raise InputError(f"expected a Dataset from the loader of {name!r}, got {type(data).__name__}")
    return data if per_class is None else data.per_class(per_class, seed)


def available_datasets() -> dict[str, str]:
    """Name and one-line description of every data set that `load_dataset` knows; loads none of them."""
    return {name: _DESCRIPTIONS.get(name, "registered by a plugin") for name in _loaders()}


def register_dataset(name: str, loader: Loader) -> None:
    """Make a data set known under a name; `loader` takes no argument and returns a `Dataset`.

    Packages can do the same with an entry point of the group ``qunlearn.datasets``.

    Raises:
        InputError: the name is taken.
    """
    if name in _loaders():
        raise InputError(f"expected a new name for the data set, got {name!r}, which is taken")
    _REGISTERED[name] = loader


def _loaders() -> dict[str, Loader]:
    """Every loader by name; an entry point is imported only when its data set is loaded."""
    plugins = {point.name: partial(_from_plugin, point) for point in entry_points(group="qunlearn.datasets")}
    return {**plugins, **_REGISTERED}


def _from_plugin(point: EntryPoint) -> Dataset:
    """Load a data set through an entry point."""
    loader: Loader = point.load()
    return loader()


def _bundled(name: str, function: str) -> Dataset:
    """A table that comes with scikit-learn."""
    from sklearn import datasets

    bunch = getattr(datasets, function)()
    classes = [str(item) for item in bunch.target_names]
    return Dataset(bunch.data.astype(np.float32), bunch.target, classes=classes, name=name)


def _digits() -> Dataset:
    """The 8x8 digits that come with scikit-learn, grey values 0 to 16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images / 16).astype(np.float32)[:, None]
    return Dataset(images, bunch.target, classes=[str(item) for item in bunch.target_names], name="digits")


def _images(name: str) -> Dataset:
    """MNIST or Fashion-MNIST: the training file's images, then the test file's, grey values 0 to 255."""
    files = _local_files(name) or _download(name)
    x, y, ids = [], [], []
    for part in ("train", "t10k"):
        if f"{part}-images-idx3-ubyte.gz" in files:
            x.append(read_idx(files[f"{part}-images-idx3-ubyte.gz"], axes=3))
            y.append(read_idx(files[f"{part}-labels-idx1-ubyte.gz"], axes=1))
            ids.append(_FIRST_ID[part] + np.arange(len(y[-1])))
    grey = np.concatenate(x)[:, None].astype(np.float32) / np.float32(255)
    classes = _FASHION if name == "fashion-mnist" else [str(digit) for digit in range(10)]
    return Dataset(grey, np.concatenate(y), np.concatenate(ids), classes, name)


def _local_files(name: str) -> dict[str, Path]:
    """The files of a data set in the folder that QUNLEARN_DATA names, checked; empty if there are none."""
    root = os.environ.get("QUNLEARN_DATA")
    if not root:
        return {}
    folder = Path(root) / name
    files = {file: folder / file for file in _MD5[name] if (folder / file).is_file()}
    for file, path in files.items():
        partner = (
            file.replace("images-idx3", "labels-idx1")
            if "images" in file
            else file.replace("labels-idx1", "images-idx3")
        )
        if partner not in files:
            raise InputError(f"expected {partner} beside {path}, got nothing there; images and labels belong together")
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if found != _MD5[name][file]:
            raise CorruptFileError(f"expected md5 {_MD5[name][file]} of {path}, got {found}; fetch the file again")
    return files


def _download(name: str) -> dict[str, Path]:
    """The files of a data set from the cache folder, fetched and checked the first time."""
    import pooch

    folder = Path(pooch.os_cache("qunlearn")) / name
    try:
        return {
            file: Path(pooch.retrieve(_URLS[name] + file, known_hash=f"md5:{md5}", fname=file, path=folder))
            for file, md5 in _MD5[name].items()
        }
    except OSError as error:
        raise DownloadError(
            f"expected to fetch {name} from {_URLS[name]}, got {type(error).__name__}; connect to the network, or put "
            f"{', '.join(_MD5[name])} into a folder {name!r} and name the folder above it in QUNLEARN_DATA"
        ) from error
    except ValueError as error:  # pooch: the checksum differs
        raise CorruptFileError(f"expected the published files of {name} at {_URLS[name]}, got {error}") from error


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """An array of unsigned bytes from a gzipped IDX file: magic number, length of each axis, data.

    Raises:
        CorruptFileError: not such a file, or cut off.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        magic, *shape = struct.unpack_from(f">{axes + 1}i", content)
        if magic != 0x0800 + axes:
            raise ValueError(f"magic number {magic}")
        return np.frombuffer(content, np.uint8, offset=4 * (axes + 1)).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise CorruptFileError(f"expected a gzipped IDX file with {axes} axes at {path}, got {error}") from None


_REGISTERED: dict[str, Loader] = {
    "iris": partial(_bundled, "iris", "load_iris"),
    "wine": partial(_bundled, "wine", "load_wine"),
    "breast-cancer": partial(_bundled, "breast-cancer", "load_breast_cancer"),
    "digits": _digits,
    "mnist": partial(_images, "mnist"),
    "fashion-mnist": partial(_images, "fashion-mnist"),
}
_DESCRIPTIONS = {
    "iris": "150 flowers, 4 measures, 3 species (Fisher 1936), built in",
    "wine": "178 wines, 13 measures, 3 growers (Forina et al. 1988), built in",
    "breast-cancer": "569 tumours, 30 measures, 2 diagnoses (Street et al. 1993), built in",
    "digits": "1,797 handwritten digits, 8x8 grey images (Alpaydin and Kaynak 1998), built in",
    "mnist": "70,000 handwritten digits, 28x28 grey images (LeCun et al. 1998), fetched once (12 MB)",
    "fashion-mnist": "70,000 pieces of clothing, 28x28 grey images (Xiao et al. 2017), fetched once (31 MB)",
}
