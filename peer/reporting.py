"""What `peer join` prints: a live panel on a terminal, one line per event otherwise, JSON lines with `--json`."""

from __future__ import annotations

import sys
import time

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from data_prep.counted import counted
from peer.events import print_event
from peer.global_step import StepReport
from peer.synchronization import Synced
from swarm.settings import RunSettings


class Reporter:
    """Plain lines, for logs and pipes."""

    def joined(self, run_id: str, peer_id: str, name: str) -> None:
        """The peer has entered the swarm and holds the run bundle."""
        self._line(f"joined {run_id} as {name} ({peer_id})")

    def synced(self, synced: Synced) -> None:
        """The peer has the swarm's current state."""
        source = f"from {synced.donor}" if synced.donor else "from the run's seed or its own memory"
        self._line(f"state of step {synced.global_step} {source} in {synced.seconds:.1f} s")

    def step(self, report: StepReport, summary: str) -> None:
        """A global step was made."""
        loss = "-" if report.loss is None else f"{report.loss:.3f}"
        batch = f"{counted(report.swarm_samples, 'sample')} of {counted(report.group, 'peer')}"
        self._line(
            f"step {report.global_step}: loss {loss}, {batch} ({report.samples} ours), "
            f"averaged in {report.seconds.step:.1f} s; {summary}"
        )

    def settings(self, settings: RunSettings, step: int) -> None:
        """The run's settings are others from this step on."""
        if settings.paused:
            self._line(f"the run is paused at step {step}: waiting until it goes on")
            return
        batch = counted(settings.target_batch_size, "sample")
        self._line(
            f"from step {step} on: {batch} a step, {counted(settings.last_step, 'step')}, "
            f"learning rate times {settings.learning_rate_scale:g}"
        )

    def reloading(self, reason: str, step: int) -> None:
        """Our state must not be used any further; the swarm's is fetched."""
        self._line(f"{reason} (at step {step}): fetching the swarm's state")

    def took_over(self, samples: int) -> None:
        """A departing peer has handed its samples of the current step over to us."""
        self._line(f"took over {counted(samples, 'sample')} from a departing peer")

    def leaving(self, reason: str, samples: int) -> None:
        """The peer has stopped computing and is looking for a place for its samples of the current step."""
        self._line(f"leaving: {reason}; {counted(samples, 'sample')} to place")

    def handed_over(self, samples: int, heir: str) -> None:
        """Another peer has taken our samples of the current step over."""
        self._line(f"handed {counted(samples, 'sample')} of the current step over to {heir}")

    def message(self, text: str) -> None:
        """Anything else that a person should know."""
        self._line(text)

    def left(self, reason: str, contributed: int, computed: int) -> None:
        """The peer has left the swarm."""
        self._line(
            f"left: {reason}; contributed {contributed} of {counted(computed, 'computed sample')}. Thank you!"
        )

    def close(self) -> None:
        """Give the terminal back."""

    def _line(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class JsonReporter(Reporter):
    """One JSON object per line on stdout, nothing else; failures are told where the process ends."""

    def joined(self, run_id: str, peer_id: str, name: str) -> None:
        print_event("joined", run_id=run_id, peer_id=peer_id, name=name)

    def synced(self, synced: Synced) -> None:
        print_event(
            "synced", global_step=synced.global_step, donor=synced.donor, seconds=round(synced.seconds, 3)
        )

    def step(self, report: StepReport, summary: str) -> None:
        print_event(
            "step",
            global_step=report.global_step,
            loss=report.loss,
            samples=report.samples,
            taken_over=report.taken_over,
            group=report.group,
            swarm_samples=report.swarm_samples,
            received=round(report.received, 4),
            seconds={
                "compute": round(report.seconds.compute, 3),
                "matchmaking": round(report.seconds.matchmaking, 3),
                "allreduce": round(report.seconds.allreduce, 3),
                "step": round(report.seconds.step, 3),
                "averaging": round(report.seconds.averaging, 3),
                "data": round(report.seconds.data, 4),
                "reduce": round(report.seconds.reduce, 4),
                "broadcast": round(report.seconds.broadcast, 4),
                "total": round(report.seconds.total, 3),
            },
            shares={name: round(share, 4) for name, share in report.seconds.shares().items()},
        )

    def settings(self, settings: RunSettings, step: int) -> None:
        print_event("settings", global_step=step, **settings.model_dump())

    def reloading(self, reason: str, step: int) -> None:
        print_event("reloading", reason=reason, global_step=step)

    def took_over(self, samples: int) -> None:
        print_event("took_over", samples=samples)

    def leaving(self, reason: str, samples: int) -> None:
        print_event("leaving", reason=reason, samples=samples)

    def handed_over(self, samples: int, heir: str) -> None:
        print_event("handed_over", samples=samples, heir=heir)

    def message(self, text: str) -> None:
        print_event("message", text=text)

    def left(self, reason: str, contributed: int, computed: int) -> None:
        print_event("left", reason=reason, samples_contributed=contributed, samples_computed=computed)


class PanelReporter(Reporter):
    """A live panel: who we are, the last step, our part in it, the last messages."""

    def __init__(self, console: Console):
        self._facts: dict[str, str] = {}
        self._messages: list[str] = []
        self._live = Live(self._render(), console=console, refresh_per_second=4)
        self._live.start()

    def joined(self, run_id: str, peer_id: str, name: str) -> None:
        self._facts |= {"run": run_id, "you are": f"{name} ({peer_id})"}
        self._line("joined the swarm")

    def step(self, report: StepReport, summary: str) -> None:
        loss = "-" if report.loss is None else f"{report.loss:.3f}"
        self._facts |= {
            "global step": str(report.global_step),
            "loss": loss,
            "samples": f"{report.swarm_samples} of {counted(report.group, 'peer')}, {report.samples} of them yours",
            "averaging": f"{report.seconds.step:.1f} s, {report.received:.0%} received",
            "time": ", ".join(f"{name} {share:.1%}" for name, share in report.seconds.shares().items()),
            "you": summary,
            "trouble": report.trouble or "none so far",
        }
        self._live.update(self._render())

    def left(self, reason: str, contributed: int, computed: int) -> None:
        super().left(reason, contributed, computed)
        self.close()

    def close(self) -> None:
        self._live.stop()

    def _line(self, text: str) -> None:
        self._messages = [*self._messages[-4:], f"{time.strftime('%H:%M:%S')} {text}"]
        self._live.update(self._render())

    def _render(self) -> Panel:
        table = Table.grid(padding=(0, 2))
        for label, value in self._facts.items():
            table.add_row(Text(label, style="bold"), value)
        return Panel(Group(table, *map(Text, self._messages)), title="artel peer", expand=False)


def make_reporter(as_json: bool) -> Reporter:
    """The reporter that fits where stdout goes."""
    if as_json:
        return JsonReporter()
    if sys.stdout.isatty():
        return PanelReporter(Console())
    return Reporter()
