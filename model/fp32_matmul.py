"""Whether oneDNN may do the fp32 matrix products on this CPU.

`torch.set_float32_matmul_precision("medium")` lets oneDNN take them over. On most CPUs it still computes in
fp32, and faster than the default; where it has bf16 tiles (AMX) it may silently use bf16. So it is measured.
"""

from __future__ import annotations

import torch

FP32_ERROR = 5e-6


def relative_error_of_medium() -> float:
    """Largest error of a product under "medium", relative to its largest entry; bf16 would give some 1e-3."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(512, 512, generator=generator) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        product = left @ right
    finally:
        torch.set_float32_matmul_precision(before)
    exact = left.double() @ right.double()
    return ((product - exact).abs().max() / exact.abs().max()).item()


def allow_onednn_fp32() -> bool:
    """Let oneDNN do fp32 products in this process if it really does them in fp32; says whether it does."""
    exact = relative_error_of_medium() < FP32_ERROR
    torch.set_float32_matmul_precision("medium" if exact else "highest")
    return exact
