"""How audits are called and printed in a report, and which of them stand in the main table and the figure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from qunlearn.study.report.wording import Measure, share

# Name (a pattern of whole names), how it is printed, whether it is a panel of the figure. The first name that fits
# fills a place of the main table.
_MAIN: tuple[tuple[str, Measure, bool], ...] = (
    (r"membership_trained_auc", Measure("", "Membership (trained attacker)", "AUC",
     "How well an attacker trained on confidence, loss and entropies tells forget samples from class-matched samples "
     "never trained on."), True),
    (r"membership_loss_auc", Measure("", "Membership (loss)", "AUC", "The same by the loss alone."), False),
    (r"membership_gradient_norm_auc", Measure("", "Membership (gradient norm)", "AUC",
     "The same by the norm of the loss\u2019s gradient alone."), False),
    (r"u_lira_auc", Measure("", "U-LiRA", "AUC",
     "The strongest attack known: a likelihood ratio a sample, from shadow models that went through the same "
     "unlearning."), True),
    (r"u_lira_tpr_1pct", share("", "U-LiRA (TPR at 1 % FPR)",
     "Share of the forget samples found while one non-member in a hundred is accused; only where at least 1,000 "
     "non-member scores are there."), False),
    (r"forgetting_quality", Measure("", "Forgetting quality", "",
     "The score of the NeurIPS 2023 challenge from N unlearned and N retrained models; capped by ln(N \u2212 1), so "
     "that scores of different N cannot be compared. The band is what two sets of retrained models get, not 1."), True),
    (r"relearn_steps", Measure("", "Relearning", "steps",
     "Steps of training on the forget set until its accuracy is back."), True),
    (r"relearn_few_5|relearn_few_\d+", share("", "Relearning (few samples)",
     "Accuracy after training on a few forget samples at a learning rate that the attacker chose."), False),
    (r"probe_linear_hidden", share("", "Inner probe (linear)",
     "Balanced accuracy of a linear probe on the features before the last layer."), True),
    (r"probe_rbf_hidden", share("", "Inner probe (RBF)", "The same with a kernel."), True),
    (r"probe_linear_circuit", share("", "Circuit probe (linear)",
     "Balanced accuracy of a linear probe that reads what was forgotten off the circuit\u2019s expectation values."),
     True),
    (r"probe_rbf_circuit", share("", "Circuit probe (RBF)",
     "The same with a kernel, which finds what was bent and not removed."), True),
    (r"probe_linear_states", share("", "State probe (linear)",
     "A linear probe on the reduced quantum states: what any measurement could still read."), True),
    (r"probe_rbf_states", share("", "State probe (RBF)", "The same with a kernel."), True),
    (r"idi", Measure("", "Information difference", "index",
     "Information on the forget set in the layers: 0 as in the retrained models, 1 as in the original."), False),
    (r"idi_holevo", Measure("", "Information difference (states)", "index",
     "The same in the quantum states, whatever is measured on them."), False),
    (r"helstrom", Measure("", "Helstrom advantage", "score",
     "What any measurement of the quantum states could tell of the forget set, fitted and scored on different samples: "
     "0 for nothing, 1 for all."), True),
    (r"zrf", Measure("", "Zero-retrain forgetting", "score",
     "Likeness of the outputs on the forget set to those of an untrained model."), False),
    (r"streisand_auc", Measure("", "Streisand", "AUC",
     "Whether forget samples stand out from samples never seen, in either direction."), False),
    (r"class_deletion_forgotten", share("", "Forgotten class, test",
     "Accuracy on the test samples of the forgotten class."), False),
    (r"confusion_mixed", share("", "Classes mixed up",
     "Share of the test samples of two classes with swapped labels that are taken for each other."), False),
)  # fmt: skip

_FAMILIES = (
    ("Membership", ("membership",)),
    ("Shadow models: U-LiRA and LiRA", ("u_lira", "lira")),
    ("Forgetting quality", ("forgetting",)),
    ("Relearning", ("relearn",)),
    ("Probes", ("probe",)),
    ("Interclass confusion", ("confusion",)),
    ("Information", ("information", "idi", "holevo", "zrf")),
    ("What any measurement of the states could tell", ("helstrom",)),
    ("Distances", ("distance",)),
    ("Streisand check", ("streisand",)),
    ("Class deletion", ("class_deletion",)),
)
_CAPITALS = {"auc": "AUC", "tpr": "TPR", "fpr": "FPR", "rbf": "RBF", "idi": "IDI", "zrf": "ZRF", "js": "JS",
             "lira": "LiRA", "ic": "IC", "ks": "KS"}  # fmt: skip
_COUNTED = ("steps", "samples", "models", "epochs")


def main_audits(names: Iterable[str], units: dict[str, str]) -> list[tuple[Measure, bool]]:
    """The audits of the main table in its order, each with whether it has a panel in the figure."""
    known = list(dict.fromkeys(names))
    found = []
    for pattern, shown, key in _MAIN:
        name = next((name for name in known if re.fullmatch(pattern, name)), None)
        if name is not None:
            found.append((_with_key(shown, name, units.get(name, "")), key))
    return found


def audit_families(names: Sequence[str], units: dict[str, str]) -> list[tuple[str, list[Measure]]]:
    """All audits in named groups, in the order in which they come."""
    known = list(dict.fromkeys(names))
    groups = [(title, [name for name in known if name.startswith(starts)]) for title, starts in _FAMILIES]
    placed = {name for _, some in groups for name in some}
    groups.append(("Other audits", [name for name in known if name not in placed]))
    return [(title, [audit_measure(name, units.get(name, "")) for name in some]) for title, some in groups if some]


def audit_measure(name: str, unit: str) -> Measure:
    """How an audit outside the main table is printed."""
    words = " ".join(_CAPITALS.get(word, word) for word in name.split("_"))
    head = words[:1].upper() + words[1:]
    if unit == "share" and "AUC" not in words:
        return share(name, head)
    return Measure(name, head, "" if unit in ("share", "score", "") else unit, digits=_digits(unit))


def _with_key(shown: Measure, name: str, unit: str) -> Measure:
    digits = _digits(unit) if unit in _COUNTED else shown.digits
    return Measure(name, shown.head, shown.unit, shown.meaning, shown.factor, digits)


def _digits(unit: str) -> int:
    return 0 if unit in _COUNTED else 3
