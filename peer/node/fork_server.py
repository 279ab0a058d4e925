"""For the fork server of the ranks, which imports this at its start, and for nobody else.

Python tells a fork server only which modules to import, so importing this one is what ties the server's life to the
supervisor's: killed with it at once, it takes the ranks along, where otherwise it would first tidy up for seconds.
"""

import os

import peer.node.rank_process  # noqa: F401  what ranks need: imported once, before they are forked
from swarm.lifeline import die_with_parent

die_with_parent(os.getppid())
