"""What the process does with memory that it has freed; in a process of its own, whose heap nobody else has used."""

from __future__ import annotations

import subprocess
import sys

import pytest

PAGES = 96 * 2**20 // 4096

COUNT_FAULTS = """
import resource
import torch
from model.host_allocator import keep_freed_memory, return_freed_memory

def faults_of_a_second_block():
    torch.ones(96 * 2**20, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(96 * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if keep_freed_memory():
    faults_of_a_second_block()  # the heap has grown to its size
    kept = faults_of_a_second_block()
    return_freed_memory()
    print(kept, faults_of_a_second_block())
"""


def test_freed_memory_is_used_again_instead_of_asked_for_anew():
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("the allocator is not glibc's")
    kept, returned = map(int, done.stdout.split())
    assert kept < PAGES // 10
    assert kept < returned
