"""`coordinator run`: first contact, tracker, keeper of the state, checkpoints and dashboard of one run.

Order is forced by hivemind: the bundle and the model first, then the DHT and the averager, which fork, then threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from coordinator.admission_desk import AdmissionDesk
from coordinator.adoption import adopt_checkpoint, copy_tokenizer_of_checkpoint
from coordinator.bundle_source import prepare_bundle
from coordinator.checkpoint_worker import CheckpointWorker
from coordinator.checkpoints import Checkpoint, CheckpointStore
from coordinator.control_server import ControlServer
from coordinator.control_service import ControlledRun, ControlService
from coordinator.control_token import load_or_create_token
from coordinator.dashboard import DashboardServer, create_app
from coordinator.deputy import Commission, be_commissioned, load_commission
from coordinator.ending import Ending
from coordinator.events import Event
from coordinator.history import History, HistoryError
from coordinator.host_port import parse_host_port
from coordinator.keeper_thread import KeeperThread
from coordinator.local_peer import LocalPeer, join_arguments
from coordinator.metric_logs import TensorBoardLog
from coordinator.model_card import NAMED_CONTRIBUTORS
from coordinator.options import CoordinatorOptions, require_usable
from coordinator.publisher import Publisher
from coordinator.run_directory import DEFAULT_PARENT, RunDirectory
from coordinator.settings_desk import SettingsDesk
from coordinator.state_keeper import StateKeeper, resume
from coordinator.status import CheckpointStatus, RunStatus
from coordinator.step_recorder import StepRecorder
from coordinator.totals_file import TotalsFile
from coordinator.tracker import Tracker
from coordinator.tracker_thread import TrackerThread
from data_prep.tokenizer import load_tokenizer
from swarm.addresses import Address, require_reachable, split_addresses
from swarm.admission import Admission
from swarm.averager import SwarmAverager
from swarm.bundle import MANIFEST_NAME, TOKENIZER_FOLDER, BundleCache, SignedManifest
from swarm.clock import SwarmView
from swarm.credentials import Credentials, TicketRenewal
from swarm.dht import RecordBoard, TiedDHT, open_dht
from swarm.errors import ArtelError
from swarm.identity import Identity
from swarm.introductions import usable_addresses
from swarm.lifeline import SharedFate
from swarm.probe import ProbeServer
from swarm.process_limits import increase_file_limit
from swarm.service import ServiceThread
from swarm.sockets import sockets_of_our_own
from swarm.spec import RunSpec, load_spec
from swarm.training_state import TrainingState, build_model
from swarm.transfer import BundleServer

logger = logging.getLogger(__name__)

HEAD_RENEWAL_SECONDS = 10.0
# of the tracker at the DHT: reading 500 peers takes a quarter of it on two cores, and a page is no later than 2 s
LOOK_SECONDS = 0.75
LOCAL_PEER_NAME = "this machine"
LOCAL_INVITATION_SECONDS = 3600.0
# a download that is on its way is left behind
KEEPER_END_SECONDS = 2.0

Say = Callable[[str], None]


def run_coordinator(options: CoordinatorOptions, say: Say) -> None:
    """Serve a run until stopped (or finished, if asked); raises `ArtelError` with words for the user."""
    increase_file_limit()
    disable_progress_bar()
    with sockets_of_our_own():
        _run_coordinator(options, say)


def _run_coordinator(options: CoordinatorOptions, say: Say) -> None:
    spec = load_spec(options.spec_path)
    require_usable(options)
    directory = RunDirectory(options.run_dir or DEFAULT_PARENT / spec.name)
    peers = require_reachable(split_addresses(options.initial_peers)) if options.initial_peers else []
    run = _open_run(options, directory, peers, say)
    with ExitStack() as stack:
        history = History(directory.history_path)
        stack.callback(history.close)
        dht = open_dht(
            identity_path=directory.identity_path,
            initial_peers=[address.text for address in peers],
            host_maddrs=options.host_maddrs,
            announce_maddrs=options.announce_maddrs,
            admission=run.admission,
        )
        stack.callback(dht.shutdown)
        coordinator = _Coordinator(directory, run, dht, history, stack)
        server = DashboardServer(
            create_app(history, lambda: coordinator.tracker.status), *parse_host_port(options.dashboard)
        )
        server.start()
        stack.callback(server.stop)
        token = load_or_create_token(directory.token_path)
        control = ControlServer(
            ControlService(coordinator.controlled), token, options.control, options.control_tls
        )
        control.start()
        stack.callback(control.stop)
        coordinator.announce_addresses(say, server.address, control.address)
        stop = _stop_on_signals()
        if options.local_peer is not None:
            fingerprint = run.signed.fingerprint
            arguments = join_arguments(dht, options.host_maddrs, fingerprint, options.local_peer)
            peer = LocalPeer(arguments, say, coordinator.invite_local_peer())
            stack.callback(peer.end)
            stop = peer.stop_after(stop)
        coordinator.serve(stop, options.exit_when_finished, say)


@dataclass(frozen=True)
class _Run:
    """What a coordinator serves, and in whose name.

    :param bundle: folder with the files of the signed manifest
    :param warrant: of the run's authority, if this coordinator is not the authority itself
    :param contacts: other participants through which the run can be joined as well
    :param credentials: our ticket, if we are not the authority
    """

    spec: RunSpec
    signed: SignedManifest
    bundle: Path
    identity: Identity
    warrant: str
    contacts: Sequence[Address]
    credentials: Credentials

    @property
    def admission(self) -> Admission:
        """Who may take part, as a participant that has just started knows it."""
        return Admission(
            self.spec.run_id,
            [self.signed.open().authority],
            by_invitation=self.spec.admission == "invite",
            own_ticket=self.credentials.ticket,
        )


def _open_run(
    options: CoordinatorOptions, directory: RunDirectory, contacts: Sequence[Address], say: Say
) -> _Run:
    spec = directory.open(options.spec_path)
    identity = Identity.load_or_create(directory.identity_path)
    credentials = Credentials(directory.identity_path, directory.ticket_path, options.invitation)
    credentials.load()
    if options.resume_from is not None:
        adopt_checkpoint(options.resume_from, directory, spec, say)
    if (commission := _commission(options, directory, contacts, spec, identity, credentials)) is not None:
        bundle = BundleCache(directory.cache_path).lay_out(commission.manifest)
        return _Run(spec, commission.manifest, bundle, identity, commission.warrant, contacts, credentials)
    signed = _bundle_of_our_own(options, directory, spec, identity, say)
    return _Run(spec, signed, directory.bundle_path, identity, "", contacts, credentials)


def _bundle_of_our_own(
    options: CoordinatorOptions, directory: RunDirectory, spec: RunSpec, identity: Identity, say: Say
) -> SignedManifest:
    bundle, base = directory.bundle_path, options.spec_path.parent
    if (bundle / MANIFEST_NAME).is_file():
        return prepare_bundle(bundle, spec, base, identity, say)
    with tempfile.TemporaryDirectory() as scratch:
        # weights fit only the tokenizer that they were trained with
        tokenizer = copy_tokenizer_of_checkpoint(directory, spec, Path(scratch))
        return prepare_bundle(bundle, spec, base, identity, say, tokenizer)


def _commission(
    options: CoordinatorOptions,
    directory: RunDirectory,
    contacts: Sequence[Address],
    spec: RunSpec,
    identity: Identity,
    credentials: Credentials,
) -> Commission | None:
    """What makes us a further coordinator of somebody's run; None if the run is our own."""
    kept = load_commission(directory.commission_path, spec, identity)
    if kept is not None or (options.authority is None and options.invitation is None):
        return kept
    cache = BundleCache(directory.cache_path)
    commission = be_commissioned(options.authority, contacts, cache, spec, identity, credentials)
    directory.write_commission(commission.model_dump_json())
    return commission


class _Coordinator:
    """The running parts: tracker and keeper in threads of their own, head records and settings in the main one."""

    def __init__(
        self,
        directory: RunDirectory,
        run: _Run,
        dht: TiedDHT,
        history: History,
        stack: ExitStack,
    ):
        self.directory, self.run, self.dht, self.history = directory, run, dht, history
        self.spec = spec = run.spec
        worker = CheckpointWorker(spec, run.bundle, directory.checkpoints_path, directory.last_state_path)
        stack.callback(worker.close)
        worker.begin()
        tokenizer = load_tokenizer(run.bundle / TOKENIZER_FOLDER)
        model = build_model(spec, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
        state = TrainingState(spec, model)
        self.store = CheckpointStore.of(directory.checkpoints_path, spec)
        self.resumed = resume(state, self.store, directory.last_state_path)
        buffers = [torch.zeros(parameter.shape) for parameter in state.parameters]
        averager = SwarmAverager(
            buffers,
            dht,
            prefix=spec.run_id,
            spec=spec.averaging,
            state_source=state.held,
        )
        stack.callback(averager.shutdown)
        stack.callback(SharedFate(averager=averager, DHT=dht).stop)
        service = ServiceThread(dht)
        stack.callback(service.stop)
        BundleServer(run.bundle, dht.admission).start(service)
        ProbeServer().start(service)
        contacts = [contact.peer_id for contact in run.contacts]
        self.board = board = RecordBoard(dht, spec.run_id, run.identity, contacts)
        self.metrics = TensorBoardLog(directory.path / "tensorboard")
        stack.callback(self.metrics.close)
        started_at = (history.span() or (None,))[0]
        self.totals = TotalsFile(directory.totals_path)
        stack.callback(self.totals.close)
        self.tracker = Tracker(board, spec, self.totals.totals, started_at, state.settings)
        shapes = [parameter.shape for parameter in state.parameters]
        self.steps = StepRecorder(history, self.metrics, self.tracker, shapes)
        self.desk = SettingsDesk(
            state.settings, board, directory.settings_path, self._look, self._announce, run.warrant
        )
        self.desk.load()
        self.admission = AdmissionDesk(
            board,
            directory.admission_path,
            self._announce,
            run.warrant,
            by_invitation=dht.admission.by_invitation,
        )
        self.admission.load()
        self.admission.open(service)
        self.renewal = TicketRenewal(run.credentials, service)
        self.keeper = StateKeeper(
            state, averager, board, worker, self._announce, self._run_facts, run.warrant
        )
        period = min(1.0, spec.leases.period)
        self.keeping = KeeperThread(self.keeper, self.tracker, self._announce, self._checkpoint_made, period)
        self.publisher = Publisher(spec.checkpoints.publish, directory, self._announce)

    @property
    def controlled(self) -> ControlledRun:
        """What the control API reaches."""
        return ControlledRun(
            lambda: self.tracker.status,
            self.desk,
            self.admission,
            self.keeping.request_checkpoint,
            self._checkpoint_status,
        )

    def invite_local_peer(self) -> str | None:
        """A token for the peer on this machine, where the run is by invitation."""
        if not self.admission.by_invitation:
            return None
        return self.admission.invite(LOCAL_PEER_NAME, "peer", LOCAL_INVITATION_SECONDS, machines=1)

    def announce_addresses(self, say: Say, dashboard: str, control: str) -> None:
        """Print and keep where the run can be joined, watched and controlled."""
        self.join_line = join_line(self.dht, self.run.signed, self.run.contacts)
        self.directory.write_dashboard_address(dashboard)
        self.directory.write_control_address(control)
        self.directory.write_join_line(self.join_line)
        self.tracker.join_line = self.join_line
        self.tracker.fingerprint = self.run.signed.fingerprint
        if self.keeper.state.step:
            say(f"resumed at step {self.keeper.state.step}")
        say(f"run        {self.spec.run_id}  (in {self.directory.path})")
        say(f"dashboard  {dashboard}")
        say(f"control    {control}")
        say(f"to join    {self.join_line}")

    def serve(self, stop: threading.Event, exit_when_finished: bool, say: Say) -> None:
        """Track and keep until told to stop; raises `ArtelError` if the beginning or the tracker fails."""
        self.say = say
        self._show_checkpoints()
        tracking = TrackerThread(self._track_once, min(LOOK_SECONDS, self.spec.leases.period), stop)
        tracking.start()
        try:
            self._begin()
            self._attend(stop, exit_when_finished)
        finally:  # nobody reads a DHT that is being closed
            stop.set()
            self.keeping.stop(timeout=KEEPER_END_SECONDS)
            tracking.join(timeout=10)
        tracking.require_sound()
        self._track_once()  # the last checkpoint may be newer than the last status

    def _begin(self) -> None:
        self.desk.renew()
        self.admission.renew()
        self.keeper.start(self.resumed)
        newest = self.keeper.last_checkpoint
        if newest is not None and newest is not self.resumed.checkpoint:
            self._record_checkpoint(newest)
        if newest is not None:
            self.publisher.offer(newest)
        self._show_checkpoints()
        self.keeping.start()
        self.publisher.start()

    def _attend(self, stop: threading.Event, exit_when_finished: bool) -> None:
        renewed = time.monotonic()
        ending = Ending(self.publisher, 4 * self.spec.leases.expiration, self.say)
        while not stop.is_set():
            last = self.keeper.last_checkpoint if exit_when_finished and self.keeper.finished else None
            if last is not None and ending.is_over(last, self.tracker.status.peers_online):
                break
            if time.monotonic() - renewed > HEAD_RENEWAL_SECONDS:
                self.keeper.sign_head()
                self.desk.renew()
                self.admission.renew()
                self._renew_ticket()
                self.board.renew_contacts()
                renewed = time.monotonic()
            stop.wait(min(1.0, self.spec.leases.period))

    def _renew_ticket(self) -> None:
        """Have the first coordinator renew our ticket, if we have one."""
        others = [peer for peer in self.tracker.view.coordinators if peer != self.board.identity.peer_id]
        ticket = self.renewal.attend(others, coordinators_are_silent=False)
        if ticket is not None:
            self.dht.renew_ticket(ticket)

    def _look(self) -> tuple[SwarmView, float]:
        return self.tracker.view, self.tracker.step_seconds

    def _checkpoint_made(self, checkpoint: Checkpoint) -> None:
        self._show_checkpoints()
        self._record_checkpoint(checkpoint)
        self.say(f"checkpoint {checkpoint.path}  held-out loss {checkpoint.heldout_loss:.3f}")
        if self.keeper.settings.is_finished_at(checkpoint.step):
            self.say("the run is finished")
        self.publisher.offer(checkpoint)

    def _record_checkpoint(self, checkpoint: Checkpoint) -> None:
        shown = self._checkpoint_status(checkpoint)
        try:
            self.history.record_checkpoint(
                shown.step, shown.path, shown.heldout_loss, shown.digest, checkpoint.saved_at
            )
        except HistoryError as error:  # it may have taken the last of the disk; it is there all the same
            logger.warning("the checkpoint of step %d is not in the history: %s", checkpoint.step, error)

    def _run_facts(self) -> dict[str, Any]:
        """What the tracker and the history know, for a model card."""
        try:
            samples, contributors = self.history.contributors(limit=NAMED_CONTRIBUTORS)
            peers = self.history.number_of_contributors()
            steps = self.history.steps(start=(self.history.span() or (0.0,))[0])
            heldout = [(item["step"], item["heldout_loss"]) for item in self.history.checkpoints()]
        except HistoryError as error:  # a card without them is better than no checkpoint
            logger.warning("the model card lacks the history: %s", error)
            return {}
        return {
            "samples": samples,
            "contributors": [(peer["name"], peer["samples"]) for peer in contributors],
            "peers": peers,
            "train_curve": _curve(zip(steps["global_step"], steps["loss"], strict=True)),
            "heldout_curve": _curve(heldout),
        }

    def _track_once(self) -> None:
        self.tracker.finished = self.keeper.finished
        status = self.tracker.poll()
        self.admission.judge(self.tracker.records, status.peers)
        try:
            self._record(status)
        except (ArtelError, OSError) as error:  # a full disk must not end the tracking
            logger.warning("the run's state could not be recorded: %s", error)

    def _record(self, status: RunStatus) -> None:
        self.history.record_status(status, status.generated_at)
        self.steps.record(status)
        self.directory.write_status(status)
        self.totals.keep()

    def _show_checkpoints(self) -> None:
        checkpoints = self.store.list()
        self.tracker.checkpoints = [self._checkpoint_status(checkpoint) for checkpoint in checkpoints]
        self.tracker.heldout_loss = checkpoints[-1].heldout_loss if checkpoints else None

    def _checkpoint_status(self, checkpoint: Checkpoint) -> CheckpointStatus:
        return CheckpointStatus(
            step=checkpoint.step,
            path=f"{self.directory.checkpoints_path.name}/{checkpoint.path.name}",
            heldout_loss=checkpoint.heldout_loss,
            digest=checkpoint.digest,
            saved_at=checkpoint.saved_at,
            heldout_accuracy=checkpoint.heldout_accuracy,
        )

    def _announce(self, event: Event) -> None:
        logger.warning(event.sentence)
        with contextlib.suppress(HistoryError):  # the disk that refused a checkpoint may refuse this as well
            self.history.record_event(event.kind, event.sentence, time.time(), data=event.data)


def _curve(points: Iterable[tuple[int | None, float | None]]) -> list[tuple[int, float]]:
    return [(int(step), loss) for step, loss in points if step is not None and loss is not None]


def join_line(dht: TiedDHT, signed: SignedManifest, contacts: Sequence[Address]) -> str:
    """The command for volunteers: addresses that others can use (loopback only if there is nothing else).

    :param contacts: other participants through which the run can be joined as well
    """
    words = [*usable_addresses(dht), *(contact.text for contact in contacts)]
    return f"peer join --initial-peers {' '.join(words)} --run {signed.fingerprint}"


def _stop_on_signals() -> threading.Event:
    """The first signal asks for an orderly end, the second ends the process at once."""
    stop = threading.Event()

    def handle(signum: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + signum)
        stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, handle)
    return stop
