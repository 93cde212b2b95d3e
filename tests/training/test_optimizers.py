"""The loop's optimizers, against torch's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from qunlearn.training.optimizers import SGD, Adam, Optimizer

SHAPES = ((3, 24), (3, 4, 5), (3, 1))


def drawn(seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]


def torch_s(cls: type[Optimizer], parameters: list[Tensor], fused: bool = True) -> torch.optim.Optimizer:
    if cls is Adam:
        return torch.optim.Adam(parameters, lr=0.03, weight_decay=0.1, fused=fused)
    return torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=0.1, fused=fused)


def step(optimizer: torch.optim.Optimizer, parameters: list[Tensor], gradients: list[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cls", [Adam, SGD])
def test_steps_are_torch_s_to_the_last_bit(cls: type[Optimizer], dtype: torch.dtype) -> None:
    ours, theirs = drawn(0, dtype), drawn(0, dtype)
    optimizer, other = cls(ours, learning_rate=0.03, weight_decay=0.1), torch_s(cls, theirs)
    for seed in range(1, 30):
        optimizer.step(drawn(seed, dtype))
        step(other, theirs, drawn(seed, dtype))
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("cls", [Adam, SGD])
def test_complex_parameters_move_as_torch_s_do(cls: type[Optimizer]) -> None:
    ours, theirs = drawn(0, torch.complex64), drawn(0, torch.complex64)
    optimizer, other = cls(ours, learning_rate=0.03, weight_decay=0.1), torch_s(cls, theirs, fused=False)
    for seed in range(1, 6):
        optimizer.step(drawn(seed, torch.complex64))
        step(other, theirs, drawn(seed, torch.complex64))
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("cls", [Adam, SGD])
def test_rows_that_are_taken_go_on_as_if_nothing_had_been(cls: type[Optimizer]) -> None:
    def rows(tensor: Tensor) -> Tensor:
        return tensor[[0, 2]].clone()

    whole = drawn(0, torch.float64)
    optimizer = cls(whole, learning_rate=0.03, weight_decay=0.1)
    for seed in range(1, 4):
        optimizer.step(drawn(seed, torch.float64))
    part = [rows(tensor) for tensor in whole]
    taken = optimizer.taken(part, rows)
    for seed in range(4, 8):
        optimizer.step(drawn(seed, torch.float64))
        taken.step([rows(gradient) for gradient in drawn(seed, torch.float64)])
    for one, two in zip(whole, part, strict=True):
        torch.testing.assert_close(rows(one), two, rtol=0, atol=1e-14)


def test_nothing_to_move_is_no_step() -> None:
    Adam([], learning_rate=0.1, weight_decay=0.0).step([])


def test_the_compiler_of_torch_is_not_imported() -> None:
    code = """
import sys, torch
from qunlearn.training import Recipe
Recipe().make_optimizer([torch.ones(2)]).step([torch.ones(2)])
print("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
