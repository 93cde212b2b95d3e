"""Running a study: plan, estimate, what is left to do, executor, baselines, report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from qunlearn.errors import CorruptFileError, InputError
from qunlearn.files import write_bytes
from qunlearn.study.baselines import baselines
from qunlearn.study.estimate import Estimate, estimate
from qunlearn.study.executors import Executor, LocalPool, cores
from qunlearn.study.grid import CONTROLS, StudyConfig
from qunlearn.study.machines import note_machines, this_machine
from qunlearn.study.plan import Plan, make_plan
from qunlearn.study.progress import StudyProgress, duration
from qunlearn.study.results import Study
from qunlearn.study.store import Store, read_json
from qunlearn.study.task import Kind, Task, json_text, units_of

Say = Callable[[str], None]
Place = Literal["local", "dask"]


@dataclass(frozen=True)
class Finished:
    """How a run ended: tasks by state, and where the report is."""

    done: int
    failed: int
    report: Path | None


def default_workers(study: StudyConfig) -> int:
    """Workers of a study: what it says, or the cores that this process may use, divided by threads."""
    return study.settings.run.workers or max(1, cores() // study.settings.run.threads)


def run_study(
    study: StudyConfig,
    root: Path,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
    on: Place = "local",
    scheduler: str | None = None,
    say: Say = print,
) -> Finished:
    """Run what is not yet done of a study, and write its report.

    Args:
        study: the study.
        root: its results folder.
        workers: how many work at once; what the study says, or as many as there is room for, where not given.
        retry_failed: whether to run failed tasks again.
        on: where the workers are: processes of this machine, or of a Dask cluster.
        scheduler: of a Dask cluster that runs, its address; without it one is started as ``[cluster]`` says.
        say: takes lines about the run.

    Raises:
        InputError: for a study that cannot work, or a folder that holds another study; nothing is started then.
        ServiceError: for a Dask scheduler that is lost; what was finished is kept.
        KeyboardInterrupt: on Ctrl-C; what was finished is kept.
    """
    if on == "dask":
        from qunlearn.study.cluster import require_dask

        require_dask()
    elif scheduler is not None:
        raise InputError(f"expected --on dask beside a Dask scheduler, got --on {on} and {scheduler}")
    store = Store(root)
    plan = make_plan(study)
    refuse_other_study(store, study)
    for sentence in left_out(plan):
        say(sentence)
    with store.locked():
        left = _left(plan, store, retry_failed, say)
        if left:
            cost = estimate(plan)
            with _workers(study, store, cost, workers, on, scheduler, say) as pool:
                say(summary(plan, left, cost, pool.workers))
                _work(pool, plan, left, set(store.failures()), cost)
        write_bytes(root / "baselines.json", json_text({"rows": baselines(plan)}).encode())
        if plan.of("ranking"):
            write_bytes(root / "ranking.json", json_text({"rows": Study(root).rankings()}).encode())
        report = _report(plan, store)
    failed = [task for task in plan.tasks if store.failure(task.key).is_file()]
    return Finished(len(plan.tasks) - len(failed), len(failed), report)


@contextmanager
def _workers(
    study: StudyConfig, store: Store, cost: Estimate, workers: int | None, on: Place, scheduler: str | None, say: Say
) -> Iterator[Executor]:
    if on == "dask":
        from qunlearn.study.cluster import open_cluster

        with open_cluster(study, store, cost.seconds, scheduler=scheduler, workers=workers, say=say) as pool:
            yield pool
        return
    note_machines(store.root, [this_machine()])
    yield LocalPool(
        store,
        study.folder,
        workers=workers or default_workers(study),
        threads=study.settings.run.threads,
        modules=study.settings.plugins.modules,
    )


def refuse_other_study(store: Store, study: StudyConfig) -> None:
    """Raise `InputError` with the differences where the folder holds the results of another study.

    Audits may be asked for, or asked for otherwise, when everything else is done: they change no other result.
    """
    path = store.root / "plan.json"
    if not path.is_file():
        return
    try:
        before = _flat(read_json(path)["study"])
    except (CorruptFileError, KeyError):
        path.replace(path.with_suffix(".json.corrupt"))  # it is written again from the study file
        return
    now = _flat(study.to_dict())
    before, now = (_without_audits(one) for one in (before, now))
    differences = [
        f"  {key}: {before.get(key, 'not set')!r} there, {now.get(key, 'not set')!r} now"
        for key in [*before, *(key for key in now if key not in before)]
        if before.get(key) != now.get(key)
    ]
    if differences:
        raise InputError(
            f"expected {store.root} to hold this study, got another one; choose another --out, or remove the folder\n"
            + "\n".join(differences)
        )


def _without_audits(flat: dict[str, Any]) -> dict[str, Any]:
    """What a study is apart from its audits, and apart from the control that they add to the methods."""
    found = {key: value for key, value in flat.items() if not key.startswith("audit.")}
    added = {"name": CONTROLS[-1], "label": CONTROLS[-1]}
    return found | {"grid.method": [one for one in found.get("grid.method", []) if one != added]}


def left_out(plan: Plan) -> list[str]:
    """A sentence for every reason for which a method is left out somewhere."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in plan.left_out:
        circuit = f" with {one['circuit']}" if len({str(other["circuit"]) for other in plan.left_out}) > 1 else ""
        found.setdefault((one["method"], one["reason"]), []).append(f"{one['request']}{circuit}")
    return [
        f"left out: {method} on {', '.join(dict.fromkeys(places))}: {reason}"
        for (method, reason), places in found.items()
    ]


def summary(plan: Plan, left: list[Task], cost: Estimate, workers: int) -> str:
    """A sentence on what is about to be done, and what it costs."""
    counts = {kind: sum(task.kind == kind for task in left) for kind in get_args(Kind)}
    gradients = sum(cost.gradient_evaluations[task.key] for task in left)
    seconds = cost.wall(units_of(plan.tasks, {task.key for task in left}), workers)
    finished = len(plan.tasks) - len(left)
    budget = plan.study.settings.tuning.budget
    tunings = f"{counts['tuning']} tunings of {budget} settings each, " if counts["tuning"] else ""
    blocks = counts["shadow"] + counts["population"]
    audits = f"{blocks} blocks of models for audits, " if blocks else ""
    audits += f"{counts['audit']} audits " if counts["audit"] else ""
    return (
        f"{plan.study.name}: {counts['original']} original and {counts['retrained']} retrained models, "
        f"{tunings}"
        f"{counts['trial']} trials{', ' if audits else ' '}{audits}on {workers} worker{'s' if workers > 1 else ''}"
        f"{f' ({finished} tasks are done already)' if finished else ''}; "
        f"about {'' if math.isnan(gradients) else f'{gradients:,.0f} gradient evaluations, '}{duration(seconds)}"
    )


def _left(plan: Plan, store: Store, retry_failed: bool, say: Say) -> list[Task]:
    """Write down the plan; the tasks that are neither done nor (unless retried) failed."""
    write_bytes(store.root / "study.toml", plan.study.text.encode())
    write_bytes(store.root / "plan.json", json_text(plan.to_dict()).encode())
    done, damaged = store.finished(list(plan.tasks))
    for sentence in damaged:
        say(sentence)
    failed = set(store.failures())
    if retry_failed:
        for key in failed:
            store.failure(key).unlink()
        failed = set()
    if outdated := _outdated(plan, store, done, failed):
        say(f"the ranking of methods was made without trials that had failed; {len(outdated)} tasks are done again")
        done -= outdated
    return [task for task in plan.tasks if task.key not in done and task.key not in failed]


def _outdated(plan: Plan, store: Store, done: set[str], failed: set[str]) -> set[str]:
    """Remove the rankings that went without a trial which is no failure any more, and what was done by them.

    Blocks of models stay: a model is the same whatever ranks its method.

    Returns:
        The keys of all that was removed.
    """
    records = {task.key: store.result("ranking", task.key)["record"] for task in plan.of("ranking") if task.key in done}
    old = {key for key, record in records.items() if not failed.issuperset(record.get("without", ()))}
    if not old:
        return set()
    found = []
    for task in plan.tasks:
        decided = task.ranking in old and task.key in done
        if task.key in old or (decided and (task.kind == "audit" or _is_without_models(task, store))):
            found.append(task)
    for task in sorted(found, key=lambda task: task.key in old):  # rankings last: who is interrupted begins again
        store.remove(task.kind, task.key)
    return {task.key for task in found}


def _is_without_models(task: Task, store: Store) -> bool:
    return "reason" in store.result(task.kind, task.key)["record"]


def _work(pool: Executor, plan: Plan, left: list[Task], failed: set[str], cost: Estimate) -> None:
    waiting = {task.key for task in left}
    finished = {task.key for task in plan.tasks} - waiting - failed
    with StudyProgress(left, cost.seconds, pool.workers) as progress:
        for outcome in pool.run(units_of(plan.tasks, waiting), finished, failed):
            progress.update(outcome)


def _report(plan: Plan, store: Store) -> Path | None:
    """The report, if any trial is there to report."""
    if not any((store.folder("trial", task.key) / "result.json").is_file() for task in plan.of("trial")):
        return None
    from qunlearn.study.report import write_report

    return write_report(store.root)


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return flat
