"""Data sets, forget requests, and the protocols that split the one for the other."""

from qunlearn.data.convert import as_dataset, count_duplicates
from qunlearn.data.corruption import Corruption
from qunlearn.data.dataset import Dataset
from qunlearn.data.outsiders import Outsiders, forgets_corrupted, outsiders
from qunlearn.data.protocols import PROTOCOLS, Protocol, PublishedProtocol, SoundProtocol, get_protocol
from qunlearn.data.request import ForgetRequest
from qunlearn.data.scaling import PUBLISHED_INTERVAL, SAFE_INTERVAL, MinMaxScaling
from qunlearn.data.sources import available_datasets, load_dataset, register_dataset
from qunlearn.data.split import Split

__all__ = [
    "PROTOCOLS",
    "PUBLISHED_INTERVAL",
    "SAFE_INTERVAL",
    "Corruption",
    "Dataset",
    "ForgetRequest",
    "MinMaxScaling",
    "Outsiders",
    "Protocol",
    "PublishedProtocol",
    "SoundProtocol",
    "Split",
    "as_dataset",
    "available_datasets",
    "count_duplicates",
    "forgets_corrupted",
    "get_protocol",
    "load_dataset",
    "outsiders",
    "register_dataset",
]
