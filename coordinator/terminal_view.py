"""The essentials of the dashboard for a terminal: what `coordinator watch` draws again and again.

`view(status, counts)` is a rich renderable and nothing else; where the status comes from and how often is
the caller's. It fits 80 columns; more peers than rows are summed up in the last line.
"""

import time

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from coordinator.events import in_words
from coordinator.history_reader import Columns
from coordinator.status import AWAY_STATES, PeerStatus, RunStatus, count_by_state

BARS = "▁▂▃▄▅▆▇█"
OLD_AFTER = 10.0
COLORS = {
    "joining": "bright_magenta",
    "syncing": "bright_cyan",
    "training": "green",
    "averaging": "blue",
    "leaving": "yellow",
    "stalled": "dark_orange",
    "lost": "red",
    "waiting": "yellow",
    "finished": "blue",
}


def view(
    status: RunStatus, counts: Columns | None = None, rows: int = 20, now: float | None = None
) -> RenderableType:
    """The run in a panel: figures, peers over time (`counts` of the history), the `rows` fastest peers."""
    now = time.time() if now is None else now
    parts: list[RenderableType] = [_figures(status)]
    if counts and counts["t"]:
        parts.append(_peers_over_time(counts))
    parts.append(_table(status.peers, rows))
    if len(status.peers) > rows:
        parts.append(Text(f"and {len(status.peers) - rows} more", style="dim"))
    age = now - status.generated_at
    if age > OLD_AFTER:
        warning = f"This is {in_words(age)} old: the coordinator does not answer."
        parts.insert(0, Text(warning, style="bold red"))
    title = Text.assemble((status.run_id, "bold"), "  ", (status.state, COLORS[status.state]))
    return Panel(Group(*parts), title=title, title_align="left", subtitle=status.reason)


def sparkline(values: list[float | None], width: int) -> str:
    """Values as block characters, the newest `width` of them; a blank where nothing was recorded."""
    newest = values[-width:]
    top = max((value for value in newest if value is not None), default=0.0) or 1.0
    last = len(BARS) - 1
    return "".join(" " if value is None else BARS[round(value / top * last)] for value in newest)


def _figures(status: RunStatus) -> Table:
    grid = Table.grid(padding=(0, 3))
    counts = count_by_state(status)
    there = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    step = f"{status.global_step}" + (f" of {status.target_steps}" if status.target_steps else "")
    batch = f"{status.samples_accumulated:,} of {status.target_batch_size:,} samples toward the next"
    speed = f"{status.samples_per_second:,.1f} samples/s"
    goodput = "" if status.goodput is None else f", goodput {status.goodput:.0%}"
    grid.add_row("peers", Text(str(status.peers_online), style="bold"), there or "nobody yet")
    grid.add_row("step", Text(step, style="bold"), batch)
    grid.add_row("speed", Text(speed, style="bold"), f"{status.samples_total:,} samples in all{goodput}")
    grid.add_row(
        "loss", Text(_loss(status.train_loss), style="bold"), f"held-out {_loss(status.heldout_loss)}"
    )
    if status.checkpoints:
        last = status.checkpoints[-1]
        grid.add_row("saved", Text(f"step {last.step}", style="bold"), last.path)
    return grid


def _peers_over_time(counts: Columns, width: int = 60) -> Text:
    newest = next((value for value in reversed(counts["online_max"]) if value is not None), 0)
    line = sparkline(counts["online_max"], width)
    return Text.assemble(("\npeers over time  ", "dim"), (line, "green"), f"  {newest}\n")


def _table(peers: list[PeerStatus], rows: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("peer", no_wrap=True, max_width=20)
    table.add_column("state", no_wrap=True)
    table.add_column("hardware", no_wrap=True, overflow="ellipsis", ratio=1)  # gives way first
    for name in ("samples/s", "samples", "step", "heard"):
        table.add_column(name, justify="right", no_wrap=True)
    ranked = sorted(peers, key=lambda p: (p.state in AWAY_STATES, -p.samples_per_second, p.name))
    for peer in ranked[:rows]:
        table.add_row(
            Text(peer.name),
            Text(peer.state, style=COLORS[peer.state]),
            Text(peer.hardware or peer.device, style="dim"),
            f"{peer.samples_per_second:,.1f}",
            f"{peer.samples_contributed:,}",
            str(peer.global_step),
            in_words(peer.last_seen),
        )
    return table


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
