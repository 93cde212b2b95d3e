"""What a guarantee may say."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from qunlearn.errors import InputError
from qunlearn.methods import Guarantee
from qunlearn.methods.certificate import ESTIMATED


def test_it_is_json() -> None:
    given = Guarantee("certified", 1.0, 1e-5, ("a",), ("w",), ("b",), {"sigma": 0.1, "names": ["x"]})
    table = json.loads(json.dumps(given.to_dict(), allow_nan=False))
    assert table == {
        "kind": "certified", "epsilon": 1.0, "delta": 1e-5, "assumptions": ["a"], "covers": ["w"], "excludes": ["b"],
        "details": {"sigma": 0.1, "names": ["x"]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "sure"}, "one of the kinds"),
        ({"kind": "certified", "epsilon": -0.1}, "finite epsilon"),
        ({"kind": "certified", "epsilon": math.inf}, "finite epsilon"),
        ({"kind": "certified", "epsilon": math.nan}, "finite epsilon"),
        ({"kind": "certified", "epsilon": 1.0, "delta": 1.0}, "finite epsilon"),
        ({"kind": "exact", "epsilon": 0.1}, "epsilon 0 and delta 0"),
        ({"kind": ESTIMATED, "epsilon": 1.0}, "name what it assumes"),
        ({"kind": "certified", "details": {"bound": math.inf}}, "finite JSON values"),
        ({"kind": "certified", "details": {"bound": object()}}, "finite JSON values"),
    ],
    ids=["kind", "negative", "infinite", "nan", "delta", "exact", "estimate", "infinite-detail", "object-detail"],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Guarantee(**settings)
