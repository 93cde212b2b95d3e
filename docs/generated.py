"""Pages and tables that are made from the code, so that they cannot differ from it.

`methods/` holds a page a method; `_generated/` holds tables that other pages include.
"""

import dataclasses
import inspect

from qunlearn import methods
from qunlearn.data import available_datasets
from qunlearn.evaluation.audit import AUDITS
from qunlearn.methods.search import in_words
from qunlearn.metrics import METRICS
from qunlearn.quantum.card import available_cards
from qunlearn.quantum.channels import CHANNELS


def write(docs):
    """Writes everything below the folder of the documentation; unchanged files stay as they are."""
    for name, cls in methods.available().items():
        _write(docs / "methods" / f"{name}.md", _method_page(name, cls))
    tables = {
        "methods": _methods,
        "strategies": _strategies,
        "metrics": _metrics,
        "audits": _audits,
        "circuits": _circuits,
        "channels": _channels,
        "datasets": _datasets,
    }
    for name, table in tables.items():
        _write(docs / "_generated" / f"{name}.md", table())


def _write(path, text):
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _method_page(name, cls):
    """Title, docstring, hyper-parameters, how it is called."""
    path = f"{cls.__module__}.{cls.__qualname__}"
    return f"""# {name}

```{{eval-rst}}
.. autoclass:: {path}
   :no-members:
```

## Needs

{", ".join(sorted(cls.needs))} (see {{doc}}`../own_model` for how to supply each). Results of revision {cls.revision}.

## Hyper-parameters

{_hyperparameters(cls)}

## Use

```python
result = qu.unlearn(original, split, method="{name}", seed=0)
```

In a study file: `method = ["{name}"]`{_example(name, cls)}.
"""


def _example(name, cls):
    fields = [field for field in dataclasses.fields(cls) if isinstance(field.default, int | float | str)]
    if not fields:
        return ""
    field = fields[0]
    value = f'"{field.default}"' if isinstance(field.default, str) else str(field.default).lower()
    return f', or `{{ name = "{name}", {field.name} = {value} }}`'


def _hyperparameters(cls):
    rows = [_hyperparameter(field) for field in dataclasses.fields(cls)]
    return _table(("name", "default", "range", "searched by tuning", "meaning"), rows) if rows else "None."


def _hyperparameter(field):
    rule = field.metadata
    choices = ", ".join(f"`{choice}`" for choice in rule.get("choices", ()))
    low, high = rule.get("low"), rule.get("high")
    limits = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
    searched = in_words(field) if rule.get("search") is not None else ""
    allowed = choices or ", ".join(limits) or "any"
    return f"`{field.name}`", f"`{field.default}`", allowed, searched, rule.get("doc", "")


def _methods():
    every = methods.available().items()
    others = [(*_method(name, cls), ", ".join(sorted(cls.needs))) for name, cls in every if not cls.strategy]
    return _table(("method", "idea", "needs"), others)


def _strategies():
    rows = [(*_method(name, cls), cls.strategy) for name, cls in methods.available().items() if cls.strategy]
    return _table(("strategy", "idea", "what it does to states"), rows)


def _method(name, cls):
    return f"[{name}](methods/{name}.md)", inspect.getdoc(cls).split("\n\n")[0].replace("\n", " ")


def _metrics():
    aim = {True: "higher", False: "lower", None: "near the retrained models'"}
    rows = []
    for item in METRICS.values():
        limits = f"{item.lower:.3g} to {item.upper:.3g}".replace("inf", "unbounded")
        needs = "yes" if item.needs_retrained else ""
        rows.append((f"`{item.name}`", item.doc, item.unit, limits, aim[item.higher_is_better], needs))
    return _table(("figure", "what it is", "unit", "range", "better", "needs retrained models"), rows)


def _audits():
    rows = []
    for name, family in AUDITS.items():
        rows.append((f"`{name}`", family.doc, ", ".join(sorted(family.needs)), family.cost))
    return _table(("family", "what it asks", "needs", "cost"), rows)


def _circuits():
    rows = [(f"`{card.name}`", card.title, ", ".join(card.knobs)) for card in available_cards().values()]
    return _table(("card", "layout", "knobs"), rows)


def _channels():
    rows = []
    for spec in CHANNELS.values():
        optional = spec.parameters[len(spec.parameters) - spec.optional :]
        strengths = [f"{name} (optional)" if name in optional else name for name in spec.parameters]
        rows.append((f"`{spec.name}`", ", ".join(strengths), spec.summary))
    return _table(("channel", "strengths", "what it does"), rows)


def _datasets():
    return _table(("name", "what it is"), [(f"`{name}`", line) for name, line in available_datasets().items()])


def _table(head, rows):
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
