"""Dask clusters for studies: one that is there, on this machine, or started as jobs of a queueing system."""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from qunlearn.errors import InputError
from qunlearn.study.config import ClusterConfig
from qunlearn.study.dask_pool import DaskPool, Say
from qunlearn.study.grid import StudyConfig
from qunlearn.study.store import Store

#: Seconds until a scheduler must answer, and until it must have a worker.
ANSWER = 30.0


def require_dask() -> None:
    """Raise `InputError` where Dask is not installed."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"expected Dask for --on dask, got none ({error}); install it with: pip install qunlearn[dask]"
        ) from None


@contextmanager
def open_cluster(
    study: StudyConfig,
    store: Store,
    seconds: Mapping[str, float],
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    say: Say = print,
) -> Iterator[DaskPool]:
    """A pool of Dask workers for a study, checked; what was started for it ends with it.

    Args:
        study: what is to be run.
        store: its results folder, which every worker must see.
        seconds: what tasks are expected to cost a worker, by key.
        scheduler: the address of one that runs, such as ``tcp://node1:8786``, or its scheduler file; without it
            workers are started as ``[cluster]`` of the study says.
        workers: how many, at most; those that are there, or that the study says.
        say: takes lines about the cluster.

    Raises:
        InputError: for a scheduler that does not answer or has no workers, and for workers that cannot serve.
    """
    from distributed import Client

    with ExitStack() as stack:
        if scheduler is None:
            cluster, jobs = _started(study, store, workers)
            stack.callback(_quietly, cluster.close)
            client = stack.enter_context(Client(cluster, set_as_default=False))
            renew = (lambda: cluster.scale(jobs=jobs)) if study.settings.cluster.system != "local" else None
            workers = workers or jobs * study.settings.cluster.workers
        else:
            client, renew = stack.enter_context(_connected(scheduler)), None
        say(f"Dask scheduler {client.scheduler.address}, dashboard {client.dashboard_link}")
        pool = DaskPool(store, study, client, seconds, limit=workers, renew=renew, say=say)
        stack.callback(_quietly, pool.close)
        pool.check(None if renew else ANSWER)
        yield pool


@contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    from distributed import Client

    where = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    try:
        client = Client(**where, set_as_default=False, timeout=ANSWER)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"expected a Dask scheduler at {scheduler}, got no answer ({error}); start one with: dask scheduler"
        ) from error
    with client:
        yield client


def _started(study: StudyConfig, store: Store, workers: int | None) -> tuple[Any, int]:
    """A cluster as the study says, and the jobs that it has."""
    config, gpu = study.settings.cluster, study.settings.run.device.startswith("cuda")
    jobs = config.jobs if workers is None else math.ceil(workers / config.workers)
    if config.system != "local":
        cluster = job_cluster(config, study.settings.run.threads, gpu, store.root)
        cluster.scale(jobs=jobs)
        return cluster, jobs
    from distributed import LocalCluster

    with _ctrl_c_stays(during=signal.SIG_IGN):  # processes inherit that: Ctrl-C is for the driver alone
        cluster = LocalCluster(
            n_workers=jobs * config.workers,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.ERROR,
            resources={"GPU": 1} if gpu else None,
        )
    return cluster, jobs


def job_cluster(config: ClusterConfig, threads: int, gpu: bool, root: Path) -> Any:
    """Dask on a queueing system, not yet with any job.

    Raises:
        InputError: for several workers a job that would share one GPU.
    """
    if gpu and config.workers > 1:
        raise InputError(
            f'expected cluster.workers = 1 with device "cuda", so that every worker has a GPU of its own, '
            f"got {config.workers}; ask for more jobs"
        )
    with _ctrl_c_stays():
        from dask_jobqueue import LSFCluster, PBSCluster, SLURMCluster

    cores = config.workers * threads
    common: dict[str, Any] = {
        "name": "qunlearn",
        "cores": config.workers,  # Dask's own threads, one a worker
        "processes": config.workers,
        "memory": config.memory,
        "walltime": config.walltime,
        "queue": config.queue,
        "interface": config.interface,
        "job_script_prologue": config.setup,
        "job_extra_directives": config.options,
        "worker_extra_args": ["--resources", "GPU=1"] if gpu else [],
        "log_directory": str(root.resolve() / "jobs"),
        "scheduler_options": {"dashboard_address": ":0"},
        "silence_logs": "error",
    }
    if config.system == "slurm":
        return SLURMCluster(**common, account=config.account, job_cpu=cores)
    if config.system == "lsf":
        return LSFCluster(**common, project=config.account, ncpus=cores)
    from dask.utils import parse_bytes
    from dask_jobqueue.pbs import pbs_format_bytes_ceil

    memory = pbs_format_bytes_ceil(parse_bytes(config.memory))
    return PBSCluster(**common, account=config.account, resource_spec=f"select=1:ncpus={cores}:mem={memory}")


@contextmanager
def _ctrl_c_stays(during: Any = None) -> Iterator[None]:
    """Give Ctrl-C back its meaning, which `dask_jobqueue` changes when it is imported, or which is `during` else."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, during or before)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _quietly(close: Callable[[], object]) -> None:
    """Close what may be gone already."""
    with suppress(Exception):
        close()
