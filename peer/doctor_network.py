"""What of the network `peer doctor` looks at: our port, the run's first contacts, who sees us where, clocks, bandwidth.

Everything beyond our own port is learned from real exchanges with a participant of the run, so it needs
`--initial-peers`; NTP is not assumed. Nothing is joined: the contact keeps no record of us.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from peer.doctor_finding import Finding, Verdict
from swarm.addresses import Address, require_port_free, why_unreachable
from swarm.bundle import SignedManifest
from swarm.errors import ArtelError
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
    """What `peer join` would be told of the network."""

    addresses: Sequence[Address] = ()
    fingerprint: str | None = None
    host_maddrs: Sequence[str] = ()
    announce_maddrs: Sequence[str] = ()
    client_mode: bool = False


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
        learned = asyncio.run(_ask(options, reachable))
    except ArtelError as error:
        words, _, fix = str(error).partition(": ")
        learned = [Finding("run", Verdict.FAIL, words, fix)]
    return [listening, *contacts, *learned]


async def _ask(options: NetworkOptions, reachable: Sequence[Address]) -> list[Finding]:
    host_maddrs = options.host_maddrs or [ANY_PORT]
    connecting = first_contact(
        reachable, host_maddrs, options.announce_maddrs, client_mode=options.client_mode
    )
    async with connecting as contact:
        signed = await contact.manifest()
        require_trusted(signed, contact.address, options.fingerprint)
        run = Finding("run", Verdict.OK, f"{contact.address.host} serves {signed.open().run_id}")
        findings = [run, judge_clock(await contact.clock())]
        if not options.client_mode:
            findings += await _announced(contact)
        return [*findings, *await _bandwidth(contact, signed)]


async def _announced(contact: FirstContact) -> list[Finding]:
    addresses = await contact.our_addresses()
    port = next((int(parts[4]) for parts in map(_parts, addresses) if parts[3] == "tcp"), None)
    answer = None if port is None else await contact.try_our_port(port)
    return [judge_addresses(addresses, contact.address), judge_port(port, answer)]


async def _bandwidth(contact: FirstContact, signed: SignedManifest) -> list[Finding]:
    return [
        judge_speed("download", await contact.download(signed)),
        judge_speed("upload", await contact.upload()),
    ]


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
    """A property of an IP address; False for names."""
    try:
        return bool(getattr(ipaddress.ip_address(host), property_name))
    except ValueError:
        return False
