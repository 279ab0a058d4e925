"""Who may call our averager: in a run by invitation peers with a ticket, in every run only those not evicted.

Lives in the averager's process, which hears of tickets and evictions through the same signed records as everybody: it
reads them when somebody calls, not more often than every few seconds, and at once for a caller it has never seen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import hivemind
from hivemind.utils.timed_storage import ValueWithExpiration

from swarm.admission import Admission
from swarm.records import EvictionsRecord, HeadRecord, Lease, RecordType, dht_key, unpack_record
from swarm.warrant import is_warranted

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 0.5
READ_TIMEOUT_SECONDS = 5.0
# a peer whose lease was late for a moment is still the same peer
REMEMBER_SECONDS = 60.0


class Gate:
    """Answers whether a peer may pass; in an open run without asking anybody but for evictions."""

    def __init__(self, admission: Admission, dht: hivemind.DHT):
        self.admission, self._dht = admission, dht
        self._seen: dict[str, float] = {}
        self._looked_at = -REFRESH_SECONDS
        self._looking = asyncio.Lock()
        # raw and checked form by type and owner: most records are read many times before they are renewed
        self._raw: dict[type[Any], dict[str, tuple[bytes, Any]]] = {}

    async def admits(self, peer_id: str) -> bool:
        """Whether this peer may average with us and copy our state."""
        unknown = self.admission.by_invitation and not self._knows(peer_id)
        if time.monotonic() - self._looked_at > (LOOK_AGAIN_SECONDS if unknown else REFRESH_SECONDS):
            await self._look()
        if peer_id in self.admission.evicted:
            return False
        return not self.admission.by_invitation or self._knows(peer_id)

    def _knows(self, peer_id: str) -> bool:
        recently = time.monotonic() - self._seen.get(peer_id, -REMEMBER_SECONDS) < REMEMBER_SECONDS
        return recently or peer_id in self.admission.authorities

    async def _look(self) -> None:
        began = time.monotonic()
        async with self._looking:
            if self._looked_at >= began:
                return  # somebody else has looked meanwhile
            for owner, record in (await self._read(EvictionsRecord)).items():
                self.admission.take_evictions(owner, record.issued, record.peers)
            if self.admission.by_invitation:
                leases, heads = await self._read(Lease), await self._read(HeadRecord)
                self._remember(leases, heads)
            self._looked_at = time.monotonic()

    def _remember(self, leases: Mapping[str, Lease], heads: Mapping[str, HeadRecord]) -> None:
        now, run_id, authorities = time.monotonic(), self.admission.run_id, self.admission.authorities
        peers = [peer for peer, lease in leases.items() if self.admission.admits(peer, lease.ticket)]
        coordinators = [
            peer for peer, head in heads.items() if is_warranted(head.warrant, run_id, peer, authorities)
        ]
        self._seen = {peer: at for peer, at in self._seen.items() if now - at < REMEMBER_SECONDS}
        self._seen |= dict.fromkeys([*peers, *coordinators], now)

    async def _read(self, record_type: type[RecordType]) -> dict[str, RecordType]:
        key = dht_key(self.admission.run_id, record_type)
        try:
            answer = await asyncio.wait_for(
                self._dht.get(key, latest=True, return_future=True), READ_TIMEOUT_SECONDS
            )
        except Exception as error:  # whatever a foreign record made the DHT process raise
            logger.warning("the gate could not read %s: %r", key, error)
            return {}
        entries = answer.value if answer is not None and isinstance(answer.value, dict) else {}
        known, found = self._raw.get(record_type, {}), {}
        for owner, entry in entries.items():
            if isinstance(owner, str) and isinstance(entry, ValueWithExpiration):
                raw, record = known.get(owner, (b"", None))
                if raw != entry.value:
                    record = unpack_record(record_type, entry.value, owner, self.admission.run_id)
                if record is not None:
                    found[owner] = (entry.value, record)
        self._raw[record_type] = found
        return {owner: record for owner, (_raw, record) in found.items()}
