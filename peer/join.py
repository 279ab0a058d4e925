"""`peer join`: from one address to a training peer, and cleanly out again.

The order is forced by hivemind: the bundle first (it says what to build), then the DHT and the averager, which fork,
then threads. Everything this process started ends with it, also when it is killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from data_prep.vocabulary import read_vocabulary
from model.training_step import checkpoint_gradients
from peer.accumulator import Accumulator
from peer.bandwidth import measure_in_background
from peer.departure import Departure
from peer.device import compute_on, find_device, prepare_compute, require_compiler
from peer.device_facts import DeviceFacts
from peer.device_readings import read_devices
from peer.global_step import GlobalStep
from peer.grace import Grace, end_at_once_when_told
from peer.hand_over import HandOverDesk
from peer.local_steps import LocalSteps
from peer.loss_scale import LossScale
from peer.micro_batch import Shape, shape_for
from peer.micro_batches import MicroBatches
from peer.node.followers import Followers, NoFollowers
from peer.node.orders import RanksLost, Setup
from peer.options import JoinOptions
from peer.presence import Description, Presence
from peer.reporting import Reporter
from peer.samples import open_samples, reading_speeds
from peer.suspension import SuspensionWatch
from peer.synchronization import Synchronizer
from peer.training_loop import TrainingLoop
from swarm.addresses import Address, require_port_free, require_reachable
from swarm.admission import Admission
from swarm.averager import SwarmAverager
from swarm.bundle import HELDOUT_NAME, TOKENIZER_FOLDER, BundleCache, Manifest, SignedManifest, load_spec_of
from swarm.credentials import Credentials, TicketRenewal
from swarm.dht import RecordBoard, TiedDHT, open_dht
from swarm.errors import BadInput, OperationFailed
from swarm.evaluation import HeldoutEvaluator
from swarm.identity import Identity
from swarm.lifeline import SharedFate
from swarm.probe import ProbeServer
from swarm.process_limits import increase_file_limit
from swarm.service import ServiceThread
from swarm.sockets import sockets_of_our_own
from swarm.spec import RunSpec
from swarm.training_state import TrainingState, build_model
from swarm.transfer import BundleServer, fetch_bundle

logger = logging.getLogger(__name__)

MAX_IDENTITIES_PER_CACHE = 256
_ANIMALS = (
    *("otter", "heron", "lynx", "marten", "stork", "badger", "crane", "beaver"),
    *("sable", "elk", "plover", "falcon", "hare", "siskin", "wolf", "perch"),
)


@dataclass(frozen=True)
class Node:
    """What this process has beside itself when it leads the ranks of a node; alone, it has nothing.

    :param facts: of our own device
    :param devices: of all ranks, by name
    :param listen: starts to listen for the supervisor's word that we are to go, and calls what it is given with it
    """

    facts: DeviceFacts
    devices: Sequence[str] = ()
    followers: Followers = field(default_factory=NoFollowers)
    listen: Callable[[Callable[[str], None]], None] | None = None


def join(options: JoinOptions, reporter: Reporter) -> None:
    """Take part in a run until it is finished or we are told to stop; raises `ArtelError` with words for the user."""
    end_at_once_when_told()
    increase_file_limit()
    with sockets_of_our_own():
        _join(options, reporter, Node(find_device(options.device, options.precision)))


def join_as_leader(options: JoinOptions, reporter: Reporter, node: Node) -> None:
    """The same, as rank 0 of a node whose supervisor listens to signals; raises `RanksLost` as well."""
    with sockets_of_our_own():
        _join(options, reporter, node)


def _join(options: JoinOptions, reporter: Reporter, node: Node) -> None:
    if options.compiled:
        require_compiler(torch.device(node.facts.device))
    require_port_free(options.host_maddrs)
    addresses = require_reachable(options.addresses)
    cache = BundleCache(options.cache_dir)
    with claimed_identity(options.cache_dir) as (identity, identity_path):
        credentials = credentials_of(options, identity, identity_path)
        signed, bundle = _get_bundle(options, addresses, cache, credentials)
        manifest = signed.open()
        spec = load_spec_of(bundle, manifest)
        # before hivemind forks, because it starts a process that measures
        shape = shape_for(spec, node.facts, options, reporter.message)
        admission = Admission(
            spec.run_id,
            [manifest.authority],
            by_invitation=spec.admission == "invite",
            own_ticket=credentials.ticket,
        )
        dht = open_dht(
            identity_path=identity_path,
            initial_peers=[address.text for address in addresses],
            host_maddrs=options.host_maddrs or ["/ip4/0.0.0.0/tcp/0"],
            announce_maddrs=options.announce_maddrs,
            client_mode=options.client_mode,
            admission=admission,
        )
        try:
            _participate(options, reporter, spec, manifest, bundle, identity, dht, node, shape, credentials)
        finally:
            dht.shutdown()


def credentials_of(options: JoinOptions, identity: Identity, identity_path: Path) -> Credentials:
    """What we show to the run that the `peer join` line names; kept by that name, for we do not know another yet."""
    run = options.fingerprint or options.addresses[0].peer_id
    kept = options.cache_dir / "tickets" / f"{identity.peer_id}-{run[:32]}.json"
    credentials = Credentials(identity_path, kept, options.invitation)
    credentials.load()
    return credentials


def _get_bundle(
    options: JoinOptions, addresses: Sequence[Address], cache: BundleCache, credentials: Credentials
) -> tuple[SignedManifest, Path]:
    """The bundle of an earlier start, if the line says which one it must be and the run is open; else from the run."""
    known = cache.find(options.fingerprint) if options.fingerprint else None
    if known is not None and load_spec_of(known[1], known[0].open()).admission == "open":
        return known
    return fetch_bundle(addresses, cache, fingerprint=options.fingerprint, credentials=credentials)


def _participate(
    options: JoinOptions,
    reporter: Reporter,
    spec: RunSpec,
    manifest: Manifest,
    bundle: Path,
    identity: Identity,
    dht: TiedDHT,
    node: Node,
    shape: Shape,
    credentials: Credentials,
) -> None:
    device, followers = torch.device(node.facts.device), node.followers
    if spec.local_steps is not None and followers.ranks > 1:
        raise BadInput(f"run {spec.name} makes local steps, which several ranks cannot: give --ranks 1")
    followers.tell_setup(Setup(spec.canonical_json().decode(), str(bundle), identity.peer_id))
    vocabulary = read_vocabulary(bundle / TOKENIZER_FOLDER)
    model = build_model(spec, vocab_size=len(vocabulary), pad_token_id=vocabulary.pad_token_id)
    buffers = [torch.zeros(parameter.shape) for parameter in model.parameters() if parameter.requires_grad]
    # the averager forks, so it comes before the model moves to a GPU
    states: list[TrainingState] = []
    averager = SwarmAverager(
        buffers,
        dht,
        prefix=spec.run_id,
        spec=spec.averaging,
        client_mode=options.client_mode,
        state_source=lambda: (
            states[0].held_for_others(spec.averaging.next_chunk_timeout / 2) if states else None
        ),
    )
    fate = SharedFate(averager=averager, DHT=dht)
    compute_on(device)
    states.append(state := TrainingState(spec, model, device))
    accumulator = _accumulator_for(state, LossScale() if node.facts.precision == "fp16" else None)
    grace = Grace(options.grace)
    grace.start(signals=node.listen is None)
    if node.listen is not None:
        node.listen(grace.request)
    if options.preemption_notice:
        options.preemption_notice.watch(grace)
    suspension = SuspensionWatch(spec.leases.expiration)
    suspension.start()
    service = ServiceThread(dht)
    name = options.name or name_for(identity.peer_id)
    contacts = [manifest.authority, *(address.peer_id for address in options.addresses)]
    presence = Presence(
        RecordBoard(dht, spec.run_id, identity, contacts),
        spec,
        Description(
            name,
            package_version(),
            node.facts.description,
            ranks=followers.ranks,
            client_mode=options.client_mode,
        ),
        state.settings,
        TicketRenewal(credentials, service),
        lambda: read_devices(node.devices or (node.facts.device,)),
    )
    samples = open_samples(
        spec,
        vocabulary,
        bundle,
        options.cache_dir,
        identity.peer_id,
        lambda: reading_speeds(presence.view),
        batch_size=shape.micro_batch_size,
        warn=reporter.message,
        ranks=followers.ranks,
    )
    try:
        followers.meet(state.model_parameters, accumulator)
        followers.watch(grace.request)
        BundleServer(bundle, dht.admission).start(service)
        ProbeServer().start(service)
        if not options.client_mode:  # a peer that nobody can reach reduces nothing
            measure_in_background(service, options.addresses[0].peer_id, averager, presence)
        presence.start()
        reporter.joined(spec.run_id, identity.peer_id, name)
        desk = HandOverDesk(presence, [buffer.shape for buffer in buffers])
        desk.open(service)
        loop = TrainingLoop(
            spec,
            state,
            MicroBatches(state.model, samples, accumulator, device, node.facts.precision, reporter.message),
            accumulator,
            GlobalStep(state, accumulator, averager, buffers, presence, suspension),
            Synchronizer(state, averager, presence, grace.requested, HeldoutEvaluator(bundle / HELDOUT_NAME)),
            presence,
            desk,
            Departure(
                spec, state, accumulator, buffers, presence, desk, service, suspension, grace, reporter
            ),
            suspension,
            reporter,
            grace.requested,
            followers,
        )

        def say_goodbye() -> None:
            presence.withdraw()
            reporter.left("the grace period is over", loop.samples_contributed, loop.samples_computed)

        grace.farewell = say_goodbye
        if shape.gradient_checkpointing:
            checkpoint_gradients(state.model)
        prepare_compute(state.model, device, compiled=options.compiled)
        lost: RanksLost | None = None
        try:
            reason = loop.run(options.stop_after_steps)
            samples.save()
        except RanksLost as error:
            lost, reason = error, str(error)
        finally:
            in_time = grace.take_farewell() is not None
            if in_time:
                presence.withdraw()
        if in_time:
            reporter.left(reason, loop.samples_contributed, loop.samples_computed)
        if lost is not None:
            raise lost
    finally:
        fate.stop()
        samples.close()
        service.stop()
        averager.shutdown()


def _accumulator_for(state: TrainingState, scale: LossScale | None) -> Accumulator:
    """As the run spec says."""
    if state.spec.local_steps is not None:
        return LocalSteps(state, state.spec.local_steps, scale)
    return Accumulator(state.model_parameters, scale)


@contextmanager
def claimed_identity(cache_dir: Path) -> Iterator[tuple[Identity, Path]]:
    """An identity of this machine that no other running peer uses: stable over restarts, one per concurrent peer."""
    folder = cache_dir / "identities"
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(MAX_IDENTITIES_PER_CACHE):
        path = folder / f"{index}.key"
        with (folder / f"{index}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield Identity.load_or_create(path), path
            return
    raise OperationFailed(
        f"{MAX_IDENTITIES_PER_CACHE} peers already use {folder}: choose another --cache-dir"
    )


def name_for(peer_id: str) -> str:
    """A name a person can remember, the same for the same identity."""
    digest = hashlib.sha256(peer_id.encode()).digest()
    return f"{_ANIMALS[digest[0] % len(_ANIMALS)]}-{digest[1] % 100}"


def package_version() -> str:
    """The installed version of Artel."""
    try:
        return version("artel")
    except PackageNotFoundError:
        return "unknown"
