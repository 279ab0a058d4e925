"""One Ed25519 key per participant: the libp2p identity, and the signature under its records.

An Ed25519 peer id contains its public key, so a record needs nothing but the peer id to be checked: connection,
record and (later) ticket are one identity. The file is libp2p's own protobuf format, mode 0600, never logged.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from google.protobuf.message import DecodeError
from hivemind.p2p import PeerID
from hivemind.proto import crypto_pb2

from swarm.errors import BadInput

SIGNATURE_BYTES = 64
# multihash header of an "identity" hash: code 0x00, then the length of the 36-byte public key message
_IDENTITY_PREFIX = bytes([0x00, 36])


@dataclass(frozen=True)
class Identity:
    """A private key and the peer id that follows from it.

    >>> identity = Identity.generate()
    >>> verify(identity.peer_id, b"message", identity.sign(b"message"))
    True
    """

    private_key: Ed25519PrivateKey
    peer_id: str

    @classmethod
    def generate(cls) -> Identity:
        """Make a fresh identity."""
        return cls.from_private_key(Ed25519PrivateKey.generate())

    @classmethod
    def from_private_key(cls, private_key: Ed25519PrivateKey) -> Identity:
        """Derive the peer id (libp2p specs, peer-ids.md: identity multihash of the public key message)."""
        message = crypto_pb2.PublicKey(key_type=crypto_pb2.Ed25519, data=_public_bytes(private_key))
        peer_id = PeerID(_IDENTITY_PREFIX + message.SerializeToString())
        return cls(private_key, peer_id.to_base58())

    @classmethod
    def load_or_create(cls, path: Path) -> Identity:
        """Read the key at `path`, or make one there (mode 0600). Raises `BadInput` if it is not such a key."""
        if not path.exists():
            identity = cls.generate()
            identity.save(path)
            return identity
        try:
            return cls.load(path)
        except (ValueError, OSError) as error:
            raise BadInput(
                f"{path} cannot be used as an identity key ({error}): restore it, or delete it to get a new identity"
            ) from None

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Read the key at `path`. Raises `OSError`, or `ValueError` if it is not such a key."""
        try:
            message = crypto_pb2.PrivateKey.FromString(path.read_bytes())
        except DecodeError:
            raise ValueError("not a key in libp2p's format") from None
        if message.key_type != crypto_pb2.Ed25519:
            raise ValueError("not an Ed25519 key")
        return cls.from_private_key(Ed25519PrivateKey.from_private_bytes(message.data[:32]))

    def save(self, path: Path) -> None:
        """Write the key in libp2p's format, readable by its owner only."""
        private = self.private_key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        data = private + _public_bytes(self.private_key)
        message = crypto_pb2.PrivateKey(key_type=crypto_pb2.Ed25519, data=data)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(message.SerializeToString())

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature of `message`, 64 bytes."""
        return self.private_key.sign(message)


def verify(peer_id: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` over `message` was made by the key inside `peer_id`; False for ids of other key types."""
    try:
        _public_key(peer_id).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _public_key(peer_id: str) -> Ed25519PublicKey:
    raw = PeerID.from_base58(peer_id).to_bytes()
    if not raw.startswith(_IDENTITY_PREFIX):
        raise ValueError(f"{peer_id} is not an Ed25519 peer id")
    try:
        message = crypto_pb2.PublicKey.FromString(raw[len(_IDENTITY_PREFIX) :])
    except DecodeError as error:
        raise ValueError(f"{peer_id} does not contain a public key") from error
    if message.key_type != crypto_pb2.Ed25519:
        raise ValueError(f"{peer_id} is not an Ed25519 peer id")
    return Ed25519PublicKey.from_public_bytes(message.data)


def _public_bytes(private_key: Ed25519PrivateKey) -> bytes:
    return private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
