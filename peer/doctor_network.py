"""What of the network `peer doctor` looks at: our port, the run's first contacts, who sees us where, clocks, bandwidth.

Everything beyond our own port is learned from real exchanges with a participant of the run, so it needs
`--initial-peers`; NTP is not assumed. Nothing is joined: the contact keeps no record of us, except of the ticket that
an invitation turns into, which `peer join` finds and uses afterwards.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from peer.doctor_finding import Finding, Verdict
from peer.join import claimed_identity, credentials_of
from peer.options import JoinOptions
from swarm.addresses import Address, require_port_free, why_unreachable
from swarm.bundle import SignedManifest
from swarm.credentials import Credentials
from swarm.errors import ArtelError, BadInput
from swarm.first_contact import ClockReading, FirstContact, Speed, first_contact
from swarm.probe import PortAnswer
from swarm.transfer import require_trusted

ANY_PORT = "/ip4/0.0.0.0/tcp/0"
# hivemind refuses peers whose clock is further away, and leases of a quick run expire after 4 s
CLOCK_FAIL_SECONDS = 3.0
CLOCK_WARN_SECONDS = 0.5
SLOW_MEGABITS = 10.0
OPEN_PORT = (
    "open the port in the firewall and forward it in the router, give --announce-maddrs, or use --client-mode"
)


@dataclass(frozen=True)
class NetworkOptions:
    """What `peer join` would be told of the network.

    :param cache_dir: where identities and tickets are; None looks at the run as a stranger
    """

    addresses: Sequence[Address] = ()
    fingerprint: str | None = None
    host_maddrs: Sequence[str] = ()
    announce_maddrs: Sequence[str] = ()
    client_mode: bool = False
    invitation: str | None = None
    cache_dir: Path | None = None


def check_listen_port(options: NetworkOptions) -> Finding:
    """Whether we can listen where we were told to."""
    if options.client_mode:
        return Finding("listening", Verdict.OK, "client mode: this peer accepts no connections")
    try:
        require_port_free(options.host_maddrs)
    except ArtelError as error:
        words, _, fix = str(error).partition(": ")
        return Finding("listening", Verdict.FAIL, words, fix)
    if not options.host_maddrs:
        return Finding(
            "listening", Verdict.OK, "any free port; --host-maddrs /ip4/0.0.0.0/tcp/PORT chooses one"
        )
    return Finding("listening", Verdict.OK, f"{', '.join(options.host_maddrs)} can be listened on")


def check_contacts(options: NetworkOptions) -> tuple[list[Finding], list[Address]]:
    """Every address of first contact by plain TCP, and those that may be used."""
    reasons = {address: why_unreachable(address) for address in options.addresses}
    reachable = [address for address, reason in reasons.items() if reason is None]
    verdict = Verdict.WARN if reachable else Verdict.FAIL
    fix = "check that the coordinator runs, that the address is its current one, and that its port is open"
    findings = [
        Finding("first contact", Verdict.OK, f"{address.text} accepts connections")
        if reason is None
        else Finding("first contact", verdict, f"{address.text} cannot be reached ({reason})", fix)
        for address, reason in reasons.items()
    ]
    return findings, reachable


def examine_network(options: NetworkOptions) -> list[Finding]:
    """All findings about the network."""
    listening = check_listen_port(options)
    if not options.addresses:
        words = "the run's first contact, our reachability, the clock and bandwidth were not looked at"
        unknown = Finding(
            "first contact", Verdict.WARN, words, "add --initial-peers and what follows in the join line"
        )
        return [listening, unknown]
    contacts, reachable = check_contacts(options)
    if not reachable or listening.verdict is Verdict.FAIL:
        return [listening, *contacts]
    try:
        with _as_the_next_peer(options) as credentials:
            learned = asyncio.run(_ask(options, reachable, credentials))
    except ArtelError as error:
        learned = [_refused(error)]
    return [listening, *contacts, *learned]


@contextmanager
def _as_the_next_peer(options: NetworkOptions) -> Iterator[Credentials | None]:
    """The credentials of the identity that the next `peer join` here would have; None if there is nothing to show."""
    if options.cache_dir is None:
        yield None
        return
    join = JoinOptions(
        options.addresses,
        options.fingerprint,
        cache_dir=options.cache_dir,
        invitation=options.invitation,
    )
    with ExitStack() as stack:
        try:
            identity, path = stack.enter_context(claimed_identity(options.cache_dir))
        except OSError:  # the finding about the cache folder says so
            yield None
            return
        credentials = credentials_of(join, identity, path)
        yield credentials if credentials.token or credentials.ticket else None


async def _ask(
    options: NetworkOptions, reachable: Sequence[Address], credentials: Credentials | None
) -> list[Finding]:
    connecting = first_contact(
        reachable,
        options.host_maddrs or [ANY_PORT],
        options.announce_maddrs,
        client_mode=options.client_mode,
        credentials=credentials,
    )
    async with connecting as contact:
        signed: SignedManifest | None = None
        try:
            signed = await contact.manifest()
            require_trusted(signed, contact.address, options.fingerprint)
            run = Finding("run", Verdict.OK, _welcome(contact.address, signed, credentials))
        except BadInput as error:  # the rest can be looked at all the same
            run = _refused(error)
        findings = [run, judge_clock(await contact.clock())]
        if not options.client_mode:
            findings += await _announced(contact)
        return [*findings, *await _bandwidth(contact, signed)]


def _welcome(address: Address, signed: SignedManifest, credentials: Credentials | None) -> str:
    words = f"{address.host} serves {signed.open().run_id}"
    if credentials is None or credentials.ticket is None:
        return words
    return f"{words} and lets us in as {credentials.ticket.name!r}"


def _refused(error: ArtelError) -> Finding:
    words, _, fix = str(error).partition(": ")
    return Finding("run", Verdict.FAIL, words, fix or "ask for the coordinator's current `peer join` line")


async def _announced(contact: FirstContact) -> list[Finding]:
    addresses = await contact.our_addresses()
    port = next((int(parts[4]) for parts in map(_parts, addresses) if parts[3] == "tcp"), None)
    answer = None if port is None else await contact.try_our_port(port)
    return [judge_addresses(addresses, contact.address), judge_port(port, answer)]


async def _bandwidth(contact: FirstContact, signed: SignedManifest | None) -> list[Finding]:
    upload = judge_speed("upload", await contact.upload())
    # strangers get nothing to measure with
    return [upload] if signed is None else [judge_speed("download", await contact.download(signed)), upload]


def judge_clock(reading: ClockReading | None) -> Finding:
    """Records of the run carry times of their own, so clocks must agree."""
    if reading is None:
        words = "the first contact did not tell its time, so the clock was not compared with anybody's"
        return Finding("clock", Verdict.WARN, words, "see `timedatectl status`: is it synchronized?")
    direction = "behind" if reading.offset > 0 else "ahead of"
    words = (
        f"{abs(reading.offset):.3f} s {direction} the first contact's, give or take {reading.uncertainty:.3f} s "
        f"(round trip {1000 * reading.round_trip:.0f} ms)"
    )
    certain = max(0.0, abs(reading.offset) - reading.uncertainty)
    if certain <= CLOCK_WARN_SECONDS:
        return Finding("clock", Verdict.OK, words)
    fix = "synchronize it: `timedatectl set-ntp true`, or tell the coordinator's operator to"
    if certain <= CLOCK_FAIL_SECONDS:
        return Finding("clock", Verdict.WARN, words, fix)
    return Finding("clock", Verdict.FAIL, f"{words}: others would take this peer for dead", fix)


def judge_addresses(addresses: Sequence[str], contact: Address) -> Finding:
    """Where others would be told to find us."""
    if not addresses:
        return Finding(
            "announced addresses", Verdict.FAIL, "none: nobody could connect to this peer", OPEN_PORT
        )
    words = f"others would be told {', '.join(addresses)}"
    hosts = [_parts(address)[2] for address in addresses]
    if all(_is(host, "is_loopback") for host in hosts) and not _is(contact.host, "is_loopback"):
        fix = "listen on all interfaces: --host-maddrs /ip4/0.0.0.0/tcp/PORT"
        return Finding("announced addresses", Verdict.FAIL, f"{words}: this machine only", fix)
    if all(_is(host, "is_private") for host in hosts) and _is(contact.host, "is_global"):
        words += ": addresses of a local network, and the run is on the internet"
        return Finding("announced addresses", Verdict.WARN, words, OPEN_PORT)
    return Finding("announced addresses", Verdict.OK, words)


def judge_port(port: int | None, answer: PortAnswer | None) -> Finding:
    """Whether the first contact could connect to us."""
    if port is None or answer is None:
        words = "the first contact cannot try our port (another version of Artel?), so nobody knows whether it is open"
        return Finding("reachability", Verdict.WARN, words, "if others cannot connect, use --client-mode")
    if answer.reason:
        seen = f"the first contact sees us as {answer.host or 'somebody'}"
        words = f"{seen}, and cannot connect to port {port} there ({answer.reason})"
        return Finding("reachability", Verdict.WARN, words, OPEN_PORT)
    return Finding(
        "reachability", Verdict.OK, f"the first contact has connected to {answer.host} port {port}"
    )


def judge_speed(direction: str, speed: Speed | None) -> Finding:
    """A real transfer through libp2p, encryption included."""
    if speed is None:
        words = "the first contact does not take part in measuring (another version of Artel?)"
        return Finding(direction, Verdict.WARN, words, "ask its operator to update")
    words = f"{speed.megabits_per_second:.0f} Mbit/s ({speed.bytes / 2**20:.1f} MiB in {speed.seconds:.1f} s)"
    if speed.megabits_per_second < SLOW_MEGABITS:
        fix = "use a cable, or another line; global steps wait for the slowest member of a group"
        return Finding(direction, Verdict.WARN, f"{words}: averaging would be slow", fix)
    return Finding(direction, Verdict.OK, words)


def _parts(address: str) -> list[str]:
    """`/ip4/HOST/tcp/PORT` at its slashes, padded."""
    return [*address.split("/"), "", "", "", "", ""]


def _is(host: str, property_name: str) -> bool:
    """A property of an IP address, or of all addresses that a name has; False for a name that has none."""
    try:
        found = {host} if _is_ip(host) else {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(getattr(ipaddress.ip_address(address.partition("%")[0]), property_name) for address in found)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
