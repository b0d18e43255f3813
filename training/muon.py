"""Muon (K. Jordan, 2024): steps along the nearest orthogonal matrix of the momentum.

For the square and 4:1 matrices of transformer blocks; every other parameter is AdamW's.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

MOMENTUM = 0.95
ITERATIONS = 5


def orthogonalised(stack: Tensor) -> Tensor:
    """Matrices (n, rows, columns), rows <= columns, with all singular values brought near 1."""
    x = stack / (stack.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


class Muon:
    """Updates matrices in place; several processes share the work."""

    def __init__(self, matrices: Iterable[Tensor], rank: int = 0, processes: int = 1) -> None:
        self._rank, self._processes = rank, processes
        self._groups: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            self._groups.setdefault(matrix.shape, []).append(matrix)
        self.momentum = {
            shape: torch.zeros(len(group), *shape) for shape, group in self._groups.items()
        }

    def step(self, rate: float) -> None:
        """One step of root mean square `rate` in every matrix."""
        with torch.no_grad():
            for shape, group in self._groups.items():
                gradients = torch.stack([p.grad for p in group if p.grad is not None])
                momentum = self.momentum[shape]
                momentum.lerp_(gradients, 1 - MOMENTUM)
                update = self._shared(gradients.lerp(momentum, MOMENTUM))
                scale = rate * max(shape) ** 0.5
                for matrix, change in zip(group, update.unbind(), strict=True):
                    matrix.sub_(change, alpha=scale)

    def _shared(self, stack: Tensor) -> Tensor:
        wide = stack if stack.shape[1] <= stack.shape[2] else stack.mT
        update = torch.zeros_like(wide, memory_format=torch.contiguous_format)
        mine = slice(self._rank, None, self._processes)
        update[mine] = orthogonalised(wide[mine])
        if self._processes > 1:
            dist.all_reduce(update)
        return update if wide is stack else update.mT
