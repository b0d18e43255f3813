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

    def step(self, rate: float, decay: float) -> None:
        """One step of root mean square `rate` in every matrix, which shrinks by `decay` of itself.

        Without the decay, steps that are noise add up: all are of one size.
        """
        with torch.no_grad():
            for (shape, group), update in zip(self._groups.items(), self._updates(), strict=True):
                scale = rate * max(shape) ** 0.5
                for matrix, change in zip(group, update.unbind(), strict=True):
                    matrix.mul_(1 - decay).sub_(change, alpha=scale)

    def _updates(self) -> list[Tensor]:
        """The direction of each group's step; every process works out its part of the matrices."""
        sizes = [momentum.numel() for momentum in self.momentum.values()]
        flat = torch.zeros(sum(sizes))
        updates = []
        for (shape, group), part in zip(self._groups.items(), flat.split(sizes), strict=True):
            gradients = torch.stack([p.grad for p in group if p.grad is not None])
            momentum = self.momentum[shape]
            momentum.lerp_(gradients, 1 - MOMENTUM)
            mine = slice(self._rank, None, self._processes)
            stack = gradients[mine].lerp(momentum[mine], MOMENTUM)
            updates.append(part.view_as(momentum))
            tall = shape[0] > shape[1]
            direction = orthogonalised(stack.mT.contiguous() if tall else stack)
            updates[-1][mine] = direction.mT if tall else direction
        if self._processes > 1:
            dist.all_reduce(flat)
        return updates
