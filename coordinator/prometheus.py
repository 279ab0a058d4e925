"""`/metrics`: the run in Prometheus' text format, computed when it is asked for.

Names begin with `artel_`; labels are `state` (of a peer or the run), `peer` (its id) and `name`. Nothing
is kept between scrapes: counters come from the status and the history, so they survive a restart of the
coordinator.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.history_reader import HistoryReader
from coordinator.status import PeerStatus, RunStatus, count_by_state

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

RUN_STATES = ("waiting", "training", "stalled", "finished")


class RunCollector(Collector):
    """Turns the current status and the history's totals into metric families."""

    def __init__(self, history: HistoryReader, current_status: Callable[[], RunStatus]) -> None:
        self._history, self._current_status = history, current_status

    def collect(self) -> Iterator[Metric]:
        """All families of one scrape."""
        status = self._current_status()
        yield from _run_metrics(status)
        yield from _peer_metrics(status.peers)
        yield from _averaging_metrics(self._history.averaging_totals())

    def describe(self) -> list[Metric]:
        """Nothing: the registry must not scrape when it registers."""
        return []


def render(history: HistoryReader, current_status: Callable[[], RunStatus]) -> bytes:
    """One scrape as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(history, current_status))
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    # An unknown number is left out rather than called zero.
    if value is not None:
        yield GaugeMetricFamily(f"artel_{name}", text, value=value)


def _run_metrics(status: RunStatus) -> Iterator[Metric]:
    info = GaugeMetricFamily("artel_run_info", "The run, always 1", labels=["run_id", "fingerprint"])
    info.add_metric([status.run_id, status.fingerprint], 1)
    yield info
    state = GaugeMetricFamily("artel_run_state", "1 for the state the run is in", labels=["state"])
    for name in RUN_STATES:
        state.add_metric([name], float(name == status.state))
    yield state
    peers = GaugeMetricFamily("artel_peers", "Peers in each state", labels=["state"])
    for peer_state, count in count_by_state(status).items():
        peers.add_metric([peer_state], count)
    yield peers
    yield CounterMetricFamily("artel_samples", "Samples in global steps", value=status.samples_total)
    yield from _gauge("peers_online", "Peers that are there to work", status.peers_online)
    yield from _gauge("global_step", "Global step of the swarm", status.global_step)
    yield from _gauge("target_steps", "Last global step of the run", status.target_steps)
    yield from _gauge("samples_per_second", "Samples per second of all peers", status.samples_per_second)
    yield from _gauge("samples_accumulated", "Samples toward the target batch", status.samples_accumulated)
    yield from _gauge("target_batch_size", "Samples of one global step", status.target_batch_size)
    yield from _gauge("goodput_ratio", "Samples in global steps / samples computed", status.goodput)
    yield from _gauge("train_loss", "Training loss", status.train_loss)
    yield from _gauge("heldout_loss", "Held-out loss of the last checkpoint", status.heldout_loss)
    yield from _gauge("swarm_split", "1 if some peers do not average with the others", float(status.split))
    yield from _gauge("status_timestamp_seconds", "When the tracker last reported", status.generated_at)
    if status.checkpoints:
        last = status.checkpoints[-1]
        yield from _gauge("checkpoint_step", "Global step of the last checkpoint", last.step)
        yield from _gauge("checkpoint_timestamp_seconds", "When it was saved", last.saved_at)


def _peer_metrics(peers: list[PeerStatus]) -> Iterator[Metric]:
    labels = ["peer", "name"]
    speed = GaugeMetricFamily("artel_peer_samples_per_second", "Speed of one peer", labels=labels)
    samples = CounterMetricFamily("artel_peer_samples", "Samples contributed by one peer", labels=labels)
    silence = GaugeMetricFamily("artel_peer_last_seen_seconds", "Seconds since it was heard", labels=labels)
    loss = GaugeMetricFamily("artel_peer_loss", "Last loss of one peer", labels=labels)
    for peer in peers:
        who = [peer.peer_id, peer.name]
        speed.add_metric(who, peer.samples_per_second)
        samples.add_metric(who, peer.samples_contributed)
        silence.add_metric(who, peer.last_seen)
        if peer.loss is not None:
            loss.add_metric(who, peer.loss)
    yield from (speed, samples, silence, loss)


def _averaging_metrics(totals: dict) -> Iterator[Metric]:
    yield CounterMetricFamily("artel_global_steps_recorded", "Global steps recorded", value=totals["steps"])
    yield CounterMetricFamily("artel_averaging_bytes", "Bytes averaged", value=totals["bytes"])
    yield CounterMetricFamily("artel_partial_rounds", "Rounds that were partial", value=totals["partial"])
    yield CounterMetricFamily("artel_failed_rounds", "Rounds that failed", value=totals["failed"])
    yield from _gauge("averaging_group_size", "Group of the last global step", totals["group_size"])
    yield from _gauge("averaging_seconds", "Duration of the last round", totals["seconds"])
    received = totals["received_fraction"]
    yield from _gauge("averaging_received_ratio", "Part of the last round really received", received)
