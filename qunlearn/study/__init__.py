"""Studies: a grid of trials from one TOML file, run on all cores, resumable, with a report at the end."""

from qunlearn.study.results import Study, load_study

__all__ = ["Study", "load_study"]
