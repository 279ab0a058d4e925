"""`make bench`: runs every benchmark in this folder, one after the other, with its default settings."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run all scripts that can be run as `python -m benchmarks.NAME`."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if not path.name.startswith("_") and "__main__" in path.read_text(encoding="utf-8"):
            print(f"== benchmarks.{path.stem}", flush=True)
            sys.argv = [path.name]
            runpy.run_module(f"benchmarks.{path.stem}", run_name="__main__")


if __name__ == "__main__":
    main()
