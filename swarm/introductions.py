"""Peers tell each other where they listen, and connect as soon as they hear of each other.

libp2p can look addresses up, but it does not hand out all of them ("routing: not found" for hosts on 192.0.2.0/24), and
it forgets those of a peer that was away. So every lease carries its owner's addresses. They need not be trusted: a
connection is to the peer id that was asked for, or it fails.
"""

from __future__ import annotations

import asyncio
import functools
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence

import hivemind
from hivemind.dht.node import DHTNode
from hivemind.p2p import PeerID
from hivemind.utils.multiaddr import Multiaddr

from swarm.records import LISTEN_ADDRESS, MAX_ADDRESSES, Lease

CONNECT_TIMEOUT_SECONDS = 5.0
MAX_CONNECTING = 32
MAX_LOST_PINGED = 4
REMEMBER_LOST_SECONDS = 600.0
LOOPBACK = ("/127.0.0.1/", "/::1/")

# where peers listen, by peer id
AddressBook = Mapping[str, Sequence[str]]


def usable_addresses(dht: hivemind.DHT) -> list[str]:
    """Our own addresses with our peer id, loopback only if there is nothing else; none if we do not listen."""
    try:
        addresses = [str(address) for address in dht.get_visible_maddrs(latest=True)]
    except ValueError:  # hivemind has no other word for it
        return []
    public = [address for address in addresses if not any(host in address for host in LOOPBACK)]
    return public or addresses


def addresses_to_publish(dht: hivemind.DHT) -> tuple[str, ...]:
    """Our own addresses as a lease carries them: without the peer id, and not more than it may carry."""
    bare = (address.rpartition("/p2p/")[0] for address in usable_addresses(dht))
    return tuple(address for address in bare if re.match(LISTEN_ADDRESS, address))[:MAX_ADDRESSES]


class Acquaintances:
    """Everyone whose lease we have seen of late; for any thread."""

    def __init__(self, own_peer_id: str):
        self._own_peer_id = own_peer_id
        self._leases: dict[str, Lease] = {}
        self._lock = threading.Lock()

    def hear_of(self, leases: Mapping[str, Lease]) -> AddressBook:
        """Remember these; returns where those listen who are new, or listen elsewhere now."""
        with self._lock:
            known = _listening(self._leases)
            self._leases |= {peer: lease for peer, lease in leases.items() if peer != self._own_peer_id}
            recently = time.time() - REMEMBER_LOST_SECONDS
            self._leases = {peer: lease for peer, lease in self._leases.items() if lease.expires > recently}
            book = _listening(self._leases)
        return {peer: addresses for peer, addresses in book.items() if known.get(peer) != addresses}

    def book(self) -> AddressBook:
        """Where everyone listens."""
        with self._lock:
            return _listening(self._leases)

    def lost(self) -> list[str]:
        """Some of those whose leases have expired: they may be behind a cut that is over."""
        with self._lock:
            lost = [peer for peer in _listening(self._leases) if self._leases[peer].expires < time.time()]
        return random.sample(lost, min(len(lost), MAX_LOST_PINGED))


def _listening(leases: Mapping[str, Lease]) -> dict[str, tuple[str, ...]]:
    return {peer: lease.addresses for peer, lease in leases.items() if lease.addresses}


def introduce(dht: hivemind.DHT, book: AddressBook, ping: Sequence[str]) -> None:
    """Connect to everyone in the book whom we are not connected to, then ping some, without waiting.

    A node that answers a ping is back in the DHT's routing table; hivemind drops one that was silent once, and never
    asks again.
    """
    if book or ping:
        dht.run_coroutine(functools.partial(_introduce, dict(book), tuple(ping)), return_future=True)


async def _introduce(book: AddressBook, ping: Sequence[str], _dht: hivemind.DHT, node: DHTNode) -> None:
    """Runs in the DHT process."""
    # with a deadline: of a task that waits for the daemon alone the event loop has no reference, and Python drops it
    listed = await asyncio.wait_for(node.p2p.list_peers(), CONNECT_TIMEOUT_SECONDS)
    connected = {str(peer.peer_id) for peer in listed}
    strangers = [peer for peer in book if peer not in connected and peer != str(node.peer_id)]
    strangers = random.sample(strangers, min(len(strangers), MAX_CONNECTING))
    await asyncio.gather(*(_connect(node, peer, book[peer]) for peer in strangers), return_exceptions=True)
    await asyncio.gather(*(node.protocol.call_ping(PeerID.from_base58(peer)) for peer in ping))


async def _connect(node: DHTNode, peer: str, addresses: Sequence[str]) -> None:
    connecting = node.p2p._client.connect(PeerID.from_base58(peer), [Multiaddr(text) for text in addresses])
    await asyncio.wait_for(connecting, CONNECT_TIMEOUT_SECONDS)
