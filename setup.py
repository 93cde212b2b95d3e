"""Finds the packages; the rest of the description is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

setup(packages=[*find_namespace_packages(include=["qunlearn", "qunlearn.*"]), "qunlearn.circuits"])
