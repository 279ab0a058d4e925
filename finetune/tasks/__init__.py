"""The tasks, one small file each; `TASKS` finds them by name."""

from __future__ import annotations

from typing import Any

from finetune.errors import BadInput
from finetune.task import Task
from finetune.tasks.classification import Classification
from finetune.tasks.danetqa import DaNetQA
from finetune.tasks.lidirus import LiDiRus
from finetune.tasks.muserc import MuSeRC
from finetune.tasks.ner import Ner
from finetune.tasks.parus import PARus
from finetune.tasks.qa import Qa
from finetune.tasks.rcb import RCB
from finetune.tasks.rucola import RuCoLA
from finetune.tasks.rucos import RuCoS
from finetune.tasks.russe import RUSSE
from finetune.tasks.rwsd import RWSD
from finetune.tasks.terra import TERRa

# in the order of the Russian SuperGLUE leaderboard
SUPERGLUE: tuple[type[Task[Any]], ...] = (LiDiRus, RCB, PARus, MuSeRC, TERRa, RUSSE, RWSD, DaNetQA, RuCoS)
_ALL: tuple[type[Task[Any]], ...] = (*SUPERGLUE, RuCoLA, Ner, Qa, Classification)
TASKS = {task.layout.task: task for task in _ALL}


def find_task(name: str) -> type[Task[Any]]:
    """The task of this name, whatever its case; `BadInput` lists the names there are."""
    for known, task in TASKS.items():
        if known.lower() == name.lower():
            return task
    raise BadInput(f"there is no task {name!r}; there are {', '.join(TASKS)}")
