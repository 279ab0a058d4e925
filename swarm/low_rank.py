"""Low-rank gradients for slow links (PowerSGD: Vogels et al. 2019, arXiv:1905.13727, algorithms 1 and 2).

A matrix M (m x n) travels as two thin factors: P = M S is averaged first, its orthonormalised columns then span what
Q = M^T P is averaged in, and P Q^T stands for the average of M. What a peer's own factors leave out it adds to its next
gradient (error feedback). Unlike the paper, S is not the last round's Q but drawn anew from the round's key: equal for
everyone, also for who has just joined, and nothing has to be kept or handed to newcomers.

The price of that: one multiplication less of power iteration, so that somewhat more is left to error feedback.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

# factors as large as this share of the matrix are not worth two exchanges
LARGEST_SHARE = 0.25


def is_worth_it(shape: torch.Size, rank: int) -> bool:
    """Whether a tensor of this shape travels as two factors."""
    return len(shape) == 2 and rank * sum(shape) <= LARGEST_SHARE * shape.numel()


class LowRankGradients:
    """The factors of one peer's gradients, round after round.

    In a round call `first`, average what it returned in place, call `second`, average that, and call `finish`. Until
    then nothing is remembered, so that a round that failed can be made again.

    >>> gradients = [torch.outer(torch.arange(64.0), torch.arange(64.0))]
    >>> compressor = LowRankGradients(rank=2)
    >>> _p = compressor.first(gradients, "round 1")
    >>> _q = compressor.second()
    >>> compressor.finish()
    >>> bool(torch.allclose(gradients[0], torch.outer(torch.arange(64.0), torch.arange(64.0)), rtol=1e-3, atol=1e-2))
    True
    """

    def __init__(self, rank: int):
        self.rank = rank
        self._errors: dict[int, torch.Tensor] = {}

    @torch.no_grad()
    def first(self, gradients: Sequence[torch.Tensor], key: str) -> list[torch.Tensor]:
        """P of every matrix, [m, rank]; `gradients` are overwritten by `finish`.

        :param key: the same for everyone in the round
        """
        self._gradients = list(gradients)
        self._matrices = {
            index: gradient + self._errors.get(index, 0.0)
            for index, gradient in enumerate(gradients)
            if is_worth_it(gradient.shape, self.rank)
        }
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
        rng = torch.Generator().manual_seed(seed)
        self._p = [
            matrix @ torch.randn(matrix.shape[1], self.rank, generator=rng)
            for matrix in self._matrices.values()
        ]
        return self._p

    @torch.no_grad()
    def second(self) -> list[torch.Tensor]:
        """Q of every matrix, [n, rank], in the orthonormal columns of the averaged P; and all other gradients."""
        self._p = [torch.linalg.qr(p).Q for p in self._p]
        self._q = [matrix.T @ p for matrix, p in zip(self._matrices.values(), self._p, strict=True)]
        self._own = [q.clone() for q in self._q]
        rest = [gradient for index, gradient in enumerate(self._gradients) if index not in self._matrices]
        return [*self._q, *rest]

    @torch.no_grad()
    def finish(self) -> None:
        """Write P Q^T of the averaged factors into the gradients, and remember what our own left out."""
        factors = zip(self._matrices.items(), self._p, self._q, self._own, strict=True)
        for (index, matrix), p, q, own in factors:
            self._errors[index] = matrix.sub_(p @ own.T)
            torch.matmul(p, q.T, out=self._gradients[index])
