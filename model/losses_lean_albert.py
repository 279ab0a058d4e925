"""Losses of LeanALBERT's heads, computed in fp32 whatever the scores' dtype.

A mean over no label at all is 0 and differentiable, not NaN: such batches happen at the end of a stream.
"""

from __future__ import annotations

import torch
from torch import nn

IGNORED_LABEL = -100


def mean_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of scores [..., V] over the labels [...] that are not ignored."""
    total = nn.functional.cross_entropy(
        logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
    )
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)


def problem_type_of(logits: torch.Tensor, labels: torch.Tensor) -> str:
    """The kind of sequence classification that these scores [B, labels] and labels mean."""
    if logits.shape[-1] == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, problem_type: str | None) -> torch.Tensor:
    """Loss of sequence classification; the problem type is chosen by the labels where it is None."""
    problem_type = problem_type or problem_type_of(logits, labels)
    if problem_type == "regression":
        return nn.functional.mse_loss(
            logits.float().squeeze(-1), labels.float().view(logits.squeeze(-1).shape)
        )
    if problem_type == "multi_label_classification":
        return nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float())
    return mean_cross_entropy(logits, labels.view(-1))


def answer_span_loss(
    start_logits_BL: torch.Tensor, end_logits_BL: torch.Tensor, start_B: torch.Tensor, end_B: torch.Tensor
) -> torch.Tensor:
    """Mean of both cross-entropies; positions outside the sequence (a truncated answer) are ignored."""
    length = start_logits_BL.shape[1]
    losses = []
    for logits, positions in ((start_logits_BL, start_B), (end_logits_BL, end_B)):
        outside = (positions < 0) | (positions >= length)
        losses.append(
            mean_cross_entropy(logits, positions.view(-1).masked_fill(outside.view(-1), IGNORED_LABEL))
        )
    return (losses[0] + losses[1]) / 2
