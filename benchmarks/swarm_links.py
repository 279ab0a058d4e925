"""What averaging costs peers whose links are slow, against plain `hivemind.Optimizer` at its defaults, in one run.

    python -m benchmarks.swarm_links [--peers 4] [--megabits 100] [--millions 16] [--step-seconds 20]
                                     [--steps 4] [--only overlap blocking hivemind] [--newcomers 0]
                                     [--slow 1] [--uneven 1] [--round-trip 0] [--plot FILE] [--json FILE]

Every peer is a process on a host of its own (a network namespace) whose link is shaped in both directions, with TCP's
usual congestion control (cubic); averaging is real, computing is a sleep. Peers are told the bandwidth that others
measure when they join. Given several values, every combination is run. Prints for each
- utilisation: time computing / wall time, from the end of the first step to the end of the last, mean over peers;
- samples/s of the swarm: computing here is a sleep, so that one peer alone makes 16;
- exchange: seconds of all-reduce a step (gradients, and parameters where the step re-averages them), and efficiency:
  the time that 2(n-1)/n of the compressed bytes take at the link's speed, over the seconds taken;
- of sockets: the seconds that plain TCP took for those bytes on these links just after, sent by everybody to everybody
  at once, over ours. Both share the processors, and several streams through one link never fill it;
- sent: bytes that a peer really sent a step, everything counted, over that lower bound;
- took: seconds a step, where `--step-seconds` are planned;
- kept: with `--slow 10` the last peer computes ten times slower than the others; the least share that a peer's samples
  in global steps are of those that it computed by then. Ours only;
- with `--uneven 4` the last peer's link is four times slower than the others'. Efficiency is then to the least time for
  shares in proportion to the links, while plain TCP still sends equal ones;
- with `--round-trip 50` it takes so many milliseconds from one peer to another and back: every frame passes through a
  process that delays it, for which netem is not needed;
- join: with `--newcomers`, how long they took to fetch the state while the others train, all at once in the middle of
  a step, over the time its bytes take on one link; and how many donors they took. Ours only.
Needs root and iproute2.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.interleaved import print_table
from benchmarks.links.stand_in import LAYERS, SAMPLES, VOCABULARIES
from coordinator.simulation.sizes import transfer_sizes
from swarm.spec import AveragingSpec, LeaseSpec, RunSpec, TrainingSpec
from tests.scenarios.delayed_links import TUN_DEVICE
from tests.scenarios.line_process import LineProcess
from tests.scenarios.network import Network

MODULES = {
    "overlap": "benchmarks.links.ours",
    "blocking": "benchmarks.links.ours",
    "hivemind": "benchmarks.links.plain_hivemind",
}
SOCKETS = "benchmarks.links.sockets"
SOCKET_EXCHANGES = 3
# look-ups of plain hivemind need addresses that libp2p hands out
SUBNET = "10.77.0"
MICRO_BATCH_SECONDS = 0.5
ANSWER_SECONDS = 600.0


@dataclass(frozen=True)
class Links:
    """One combination: so many peers on such links, a model of so many million values, a step every so often."""

    peers: int
    megabits: float
    millions: int
    step_seconds: float
    newcomers: int = 0
    slow: float = 1.0
    uneven: float = 1.0
    round_trip: float = 0.0

    def megabits_of(self, host: int) -> float:
        """Of a peer's link, or a newcomer's."""
        return self.megabits / (self.uneven if host == self.peers - 1 else 1.0)

    @property
    def speeds(self) -> list[float]:
        """Samples a second of each peer, alone."""
        fast = SAMPLES / MICRO_BATCH_SECONDS
        return [fast] * (self.peers - 1) + [fast / self.slow]


@dataclass(frozen=True)
class Cost:
    """What was measured of one kind of peer on one combination; see the module's docstring."""

    kind: str
    links: Links
    utilisation: float
    samples_per_second: float
    took_seconds: float
    exchange_seconds: float | None
    efficiency: float | None
    of_sockets: float | None
    sent_megabytes: float
    sent_over_bound: float | None
    groups: float
    matchmaking_seconds: float | None
    kept: float | None
    join_over_bound: float | None = None
    donors: int = 0


def spec_of(links: Links, kind: str) -> RunSpec:
    """The run that ours take part in; plain hivemind takes its model and batch."""
    batch = round(sum(links.speeds) * links.step_seconds)
    return RunSpec(
        name="links",
        model=LAYERS[links.millions],
        data=VOCABULARIES[links.millions],
        training=TrainingSpec(target_batch_size=batch, learning_rate=1e-5),
        averaging=AveragingSpec(
            overlap=kind == "overlap", state_compression="float16", state_every=STATE_EVERY
        ),
        leases=LeaseSpec(period=2.0, expiration=20.0),
    )


STATE_EVERY = 5


class Hosts:
    """The peers on their hosts, and newcomers on theirs.

    :param peers: processes that make the steps; `newcomers`: that fetch the state
    """

    def __init__(self, kind: str, links: Links, steps: int, folder: str):
        self.links = links
        count = links.peers + (links.newcomers if kind != "hivemind" else 0)
        self._network = Network(count, SUBNET, round_trip=links.round_trip / 1e3)
        self._processes: list[LineProcess] = []
        setup = {
            "spec": spec_of(links, kind).model_dump_json(),
            "folder": folder,
            "initial_peers": list[str](),
            "peers": links.peers,
            "steps": steps,
        }
        for host in range(count):
            self._network.shape(host, links.megabits_of(host))
            process = LineProcess(MODULES[kind], deadline=ANSWER_SECONDS, on=self._network.on(host))
            self._processes.append(process)
            duration = MICRO_BATCH_SECONDS * (links.slow if host == links.peers - 1 else 1.0)
            process.tell(
                **setup,
                megabits=links.megabits_of(host),
                newcomer=host >= links.peers,
                micro_batch_seconds=duration,
            )
            if host == 0:
                addresses = process.hear()["addresses"]
                setup["initial_peers"] = [address for address in addresses if "127.0.0.1" not in address]
        for process in self._processes[1:]:
            process.hear()
        self.peers, self.newcomers = self._processes[: links.peers], self._processes[links.peers :]

    def begin(self) -> None:
        """Let all see each other, and the peers train."""
        for process in self._processes:
            process.tell(do="look around")
        for process in self._processes:
            process.hear()
        for process in self.peers:
            process.tell(do="train")

    def join(self) -> list[dict[str, Any]]:
        """Let the newcomers fetch the state in the middle of the second step."""
        if not self.newcomers:
            return []
        for process in self.newcomers:
            process.tell(do="fetch", after=0.5 * self.links.step_seconds)
        return [process.hear() for process in self.newcomers]

    def close(self) -> None:
        """End everything."""
        for process in self._processes:
            process.kill_group()
        self._network.close()


def socket_seconds(links: Links, size: float) -> float:
    """How long peers need to send each other `size` bytes each by plain TCP: the mean of a few times."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(
            contextlib.closing(Network(links.peers, SUBNET, round_trip=links.round_trip / 1e3))
        )
        processes = []
        for host in range(links.peers):
            network.shape(host, links.megabits_of(host))
            process = LineProcess(SOCKETS, deadline=ANSWER_SECONDS, on=network.on(host))
            stack.callback(process.kill_group)
            process.tell(others=[network.address(other) for other in range(links.peers) if other != host])
            processes.append(process)
        for process in processes:
            process.hear()
        seconds = []
        for _ in range(SOCKET_EXCHANGES):
            for process in processes:
                process.tell(bytes=size)
            seconds += [process.hear()["seconds"] for process in processes]
    return statistics.mean(seconds)


def measure(kind: str, links: Links, steps: int, folder: str) -> Cost:
    """Start the peers on their hosts, let them make the steps, and end them."""
    with contextlib.closing(Hosts(kind, links, steps, folder)) as hosts:
        hosts.begin()
        joins = hosts.join()
        answers = [peer.hear()["steps"] for peer in hosts.peers]
    cost = cost_of(kind, links, spec_of(links, kind), answers)
    if not joins:
        return cost
    bound = joins[0]["bytes"] * 8 / (links.megabits * 1e6)
    worst = max(join["seconds"] for join in joins) / bound
    return replace(
        cost, join_over_bound=worst, donors=len({donor for join in joins for donor in join["donors"]})
    )


def cost_of(kind: str, links: Links, spec: RunSpec, answers: Sequence[Sequence[Mapping[str, float]]]) -> Cost:
    """Means over peers, from the end of the first step to the end of the last."""
    walls = [steps[-1]["end"] - steps[0]["end"] for steps in answers]
    computed = [steps[-1]["computed"] - steps[0]["computed"] for steps in answers]
    sent = [(steps[-1]["sent"] - steps[0]["sent"]) / (len(steps) - 1) for steps in answers]
    later = [step for steps in answers for step in steps[1:]]
    shares = [c / w for c, w in zip(computed, walls, strict=True)]
    ours = kind != "hivemind"
    exchange = statistics.mean(step["allreduce"] for step in later) if ours else None
    bound = bound_bytes(spec, links, len(answers[0]) - 1) if ours else None
    return Cost(
        kind=kind,
        links=links,
        utilisation=statistics.mean(shares),
        samples_per_second=sum(share * speed for share, speed in zip(shares, links.speeds, strict=True)),
        took_seconds=statistics.mean(walls) / (len(answers[0]) - 1),
        exchange_seconds=exchange,
        efficiency=least_seconds(links, bound) / exchange if bound and exchange else None,
        of_sockets=socket_seconds(links, bound) / exchange if bound and exchange else None,
        sent_megabytes=statistics.mean(sent) / 1e6,
        sent_over_bound=statistics.mean(sent) / bound if bound else None,
        groups=statistics.mean(step["group"] for step in later),
        matchmaking_seconds=statistics.mean(step["matchmaking"] for step in later) if ours else None,
        kept=min(kept_share(*one) for one in zip(answers, links.speeds, strict=True)) if ours else None,
    )


def kept_share(steps: Sequence[Mapping[str, float]], speed: float) -> float:
    """What a peer put into global steps, of what it had computed one step before the last; at most 1.

    What is computed beside a step enters the next one, so that the last step's is not there yet.
    """
    return min(1.0, sum(step["own"] for step in steps) / (speed * steps[-2]["computed"]))


def bound_bytes(spec: RunSpec, links: Links, steps: int) -> float:
    """Bytes that each peer must send a step, the mean over the steps after the first one."""
    sizes = transfer_sizes(spec)
    states = sum(step % STATE_EVERY == 0 for step in range(2, steps + 2))
    copies = sizes.gradients + sizes.parameters * states / steps
    return 2 * (links.peers - 1) / links.peers * copies


def least_seconds(links: Links, bound: float) -> float:
    """Least time for an all-reduce of which each peer sends `bound` bytes if all reduce equal shares.

    Of n peers, one that reduces a share f of V megabits of values sends (1 - f) V of its own and f V to n - 1 others:
    V in any case, and 2 (n - 1) V all of them together.
    """
    peers = links.peers
    speeds = [links.megabits_of(peer) for peer in range(peers)]
    values = bound * 8 / 1e6 * peers / (2 * (peers - 1))
    return max(2 * (peers - 1) * values / sum(speeds), values / min(speeds))


def row_of(cost: Cost) -> tuple[str, ...]:
    """A line of the printed table."""

    def shown(value: float | None, pattern: str) -> str:
        return "" if value is None else format(value, pattern)

    links = cost.links
    return (
        str(links.peers),
        f"{links.megabits:g}",
        f"{links.millions} M",
        f"{links.step_seconds:g}",
        f"{links.round_trip:g}",
        cost.kind,
        f"{cost.utilisation:.1%}",
        f"{cost.samples_per_second:.1f}",
        f"{cost.took_seconds:.1f}",
        shown(cost.matchmaking_seconds, ".2f"),
        shown(cost.exchange_seconds, ".2f"),
        shown(cost.efficiency, ".2f"),
        shown(cost.of_sockets, ".2f"),
        f"{cost.sent_megabytes:.1f}",
        shown(cost.sent_over_bound, ".2f"),
        f"{cost.groups:.1f}",
        shown(cost.kept, ".1%"),
        f"{cost.join_over_bound:.2f} of {cost.donors}" if cost.join_over_bound is not None else "",
    )


HEADER = (
    "peers",
    "Mbit/s",
    "values",
    "step s",
    "round trip ms",
    "kind",
    "utilisation",
    "samples/s",
    "took",
    "matchmaking s",
    "exchange s",
    "efficiency",
    "of sockets",
    "sent MB",
    "over bound",
    "group",
    "kept",
    "join",
)


def save_plot(costs: Sequence[Cost], path: Path) -> None:
    """Seconds of exchange by number of peers, and by size of the model; needs matplotlib."""
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    figure, both = pyplot.subplots(1, 2, figsize=(10, 4.5), sharey=True, layout="constrained")
    for axes, over, name in zip(both, ("peers", "millions"), ("peers", "million values"), strict=True):
        for label, points in _lines(costs, over).items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=label)
        axes.set(xlabel=name, yscale="log")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    both[0].set_ylabel("seconds of all-reduce a step")
    for formatted in (both[0].yaxis.set_major_formatter, both[0].yaxis.set_minor_formatter):
        formatted(FuncFormatter(lambda value, _place: f"{value:g}"))
    figure.savefig(path)


def _lines(costs: Sequence[Cost], over: str) -> dict[str, list[tuple[float, float]]]:
    """Points (peers or millions, seconds) of each line, by what is the same for all of its points."""
    other, unit = ("millions", "M values") if over == "peers" else ("peers", "peers")
    lines: dict[str, list[tuple[float, float]]] = {}
    for cost in costs:
        if cost.exchange_seconds and not cost.links.newcomers:
            label = f"{getattr(cost.links, other)} {unit}, {cost.links.megabits:g} Mbit/s, {cost.kind}"
            lines.setdefault(label, []).append((getattr(cost.links, over), cost.exchange_seconds))
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, nargs="+", default=[4])
    parser.add_argument("--megabits", type=float, nargs="+", default=[100.0])
    parser.add_argument("--millions", type=int, nargs="+", default=[16], choices=sorted(LAYERS))
    parser.add_argument("--step-seconds", type=float, nargs="+", default=[20.0])
    parser.add_argument("--steps", type=int, default=4, help="the first one is not counted")
    parser.add_argument("--only", nargs="+", default=list(MODULES), choices=list(MODULES))
    parser.add_argument("--newcomers", type=int, nargs="+", default=[0])
    parser.add_argument("--slow", type=float, nargs="+", default=[1.0])
    parser.add_argument("--uneven", type=float, nargs="+", default=[1.0])
    parser.add_argument("--round-trip", type=float, nargs="+", default=[0.0], help="in milliseconds")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.steps < 2:
        parser.error("--steps must be at least 2: the first one is not counted")
    if not Network.available():
        print("swarm_links: needs root, iproute2 and network namespaces", file=sys.stderr)
        return
    if any(given.round_trip) and not Network.can_delay():
        print(f"swarm_links: --round-trip needs {TUN_DEVICE}", file=sys.stderr)
        return
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory() as folder:
        choices: tuple[Sequence[Any], ...] = (
            given.peers,
            given.megabits,
            given.millions,
            given.step_seconds,
            given.newcomers,
            given.slow,
            given.uneven,
            given.round_trip,
        )
        for combination in itertools.product(*choices):
            for kind in given.only:
                costs.append(measure(kind, Links(*combination), given.steps, folder))
                print(" ".join(row_of(costs[-1])), file=sys.stderr, flush=True)
    print_table(HEADER, [row_of(cost) for cost in costs])
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end")
    if given.json:
        given.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")
    if given.plot:
        save_plot(costs, given.plot)


if __name__ == "__main__":
    main()
