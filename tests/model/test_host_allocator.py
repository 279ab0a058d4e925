"""What the process does with memory that it has freed."""

from __future__ import annotations

import resource

import pytest
import torch

from model.host_allocator import keep_freed_memory, return_freed_memory

BYTES, PAGE = 96 * 2**20, 4096


def faults_of_a_second_block() -> int:
    """Pages that the system clears for a large block after one of its size was freed."""
    torch.ones(BYTES, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(BYTES, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.fixture
def glibc():
    if not keep_freed_memory():
        pytest.skip("the allocator is not glibc's")
    yield
    return_freed_memory()


def test_freed_memory_is_used_again_instead_of_asked_for_anew(glibc):
    kept = faults_of_a_second_block()
    return_freed_memory()
    returned = faults_of_a_second_block()
    assert kept < BYTES // PAGE // 10
    assert returned > 0
    assert kept < returned
