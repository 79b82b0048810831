"""Frames chunks of tensor bytes by hand, and says how channels and servers are set up, for both sides alike.

A chunk is a TransferUp or TransferDown with fields 1 (bytes) and 2 (fixed32) alone. Written by hand its bytes are
copied once, and read by hand not at all, where protobuf copies them at least twice: 2-4 GB/s against 0.7 over loopback.
What goes over the wire stays a legal message of coordinator.proto.
"""

from __future__ import annotations

import struct

import google_crc32c
import numpy as np

from paceline.errors import ProtocolError

PROTOCOL_VERSION = 1
# The largest chunk, and the first one.
CHUNK_BYTES = 1 << 20
FIRST_CHUNK_BYTES = 1 << 16
# A worker needs one on each of its two connections; a status, a health check beside them.
STREAMS_PER_CONNECTION = 16

_CHUNK_TAG = 0x0A  # field 1, length-delimited
_CRC_TAG = 0x15  # field 2, fixed32
_CRC = struct.Struct("<BI")

_Options = list[tuple[str, int]]


class ChunkSize:
    """Says how large the next chunk of a stream is: large ones are cheap, small ones show that a slow link is alive.

    The other side hears of a chunk when it is whole: 1 MiB takes 8 s at 1 Mbit/s, which looks like a dead link. So the
    size doubles after some quick writes, and halves after a slow one. A write is over when its bytes are in gRPC's and
    the system's buffers, which take the first few hundred KB of any link at once: therefore "some".
    """

    _QUICK_S, _QUICK_WRITES, _SLOW_S = 0.05, 4, 0.5

    def __init__(self) -> None:
        self.bytes = FIRST_CHUNK_BYTES
        self._quick = 0

    def wrote(self, seconds: float) -> None:
        """Take in how long the write of a chunk took."""
        self._quick = self._quick + 1 if seconds < self._QUICK_S else 0
        if self._quick >= self._QUICK_WRITES and self.bytes < CHUNK_BYTES:
            self.bytes *= 2
            self._quick = 0
        elif seconds > self._SLOW_S and self.bytes > FIRST_CHUNK_BYTES:
            self.bytes //= 2


def crc32c(data: bytes | memoryview, start: int = 0) -> int:
    """Compute a CRC-32C.

    Args:
        start: the checksum of what comes before the data.

    Complexity: 45 us per MiB.
    """
    # The C extension takes bytes and arrays, and no memoryview.
    value: int
    if len(data) <= CHUNK_BYTES:
        value = google_crc32c.extend(start, data if isinstance(data, bytes) else np.frombuffer(data, np.uint8))
        return value
    # Piece by piece, since it holds the interpreter's lock: 40 ms for 200 MB, in which no other thread would run.
    value, array = start, np.frombuffer(data, np.uint8)
    for start in range(0, len(array), CHUNK_BYTES):
        value = google_crc32c.extend(value, array[start : start + CHUNK_BYTES])
    return value


def frame_chunk(view: memoryview) -> bytes:
    """Frame one chunk with its checksum, copying its bytes once.

    Args:
        view: at least one byte, at most CHUNK_BYTES by custom; format "B".
    """
    return b"".join((_tag_and_length(len(view)), view, _CRC.pack(_CRC_TAG, crc32c(view))))


def parse_chunk(message: bytes) -> tuple[memoryview, int] | None:
    """Read a chunk: its bytes as a view into the message, and the checksum that it carries (not compared here).

    Returns:
        None if the message is something else than a chunk.

    Raises:
        ProtocolError: it begins like a chunk and is none.
    """
    if not message or message[0] != _CHUNK_TAG:
        return None
    start, length = _length(message)
    end = start + length
    rest = len(message) - end
    # A writer that is not ours leaves a checksum of zero out.
    if rest not in (0, _CRC.size) or (rest and message[end] != _CRC_TAG):
        raise ProtocolError(f"a chunk of {len(message)} bytes is misframed: {length} bytes named, {rest} left over")
    return memoryview(message)[start:end], _CRC.unpack_from(message, end)[1] if rest else 0


def channel_options() -> _Options:
    """Give the options of a worker's channels.

    A silent connection (a dropped NAT entry, a pulled cable) is found by pings within half a minute. Without a pool of
    its own each channel would share one connection with the other, and a push would delay heartbeats.
    """
    return [
        *_both_sides(),
        ("grpc.max_receive_message_length", -1),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A worker dials its server itself; a proxy set for web pages would break that.
        ("grpc.enable_http_proxy", 0),
    ]


def server_options(message_bytes: int) -> _Options:
    """Give the options of the server.

    What a stranger can make it keep is little: a connection that does not shake hands, or that no call uses, is closed.
    It allows more pings than channel_options send, and answers too many without closing ("too many pings"). A port that
    another process listens on is an error rather than shared.

    Args:
        message_bytes: the largest message that it takes.
    """
    return [
        *_both_sides(),
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
        ("grpc.server_handshake_timeout_ms", 5_000),
        ("grpc.max_connection_idle_ms", 60_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.so_reuseport", 0),
    ]


def _both_sides() -> _Options:
    return [
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_send_message_length", -1),
    ]


def _tag_and_length(length: int) -> bytes:
    out = bytearray((_CHUNK_TAG,))
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def _length(message: bytes) -> tuple[int, int]:
    """Read the varint after the tag: where it ends, and its value."""
    length = 0
    for at in range(1, min(len(message), 11)):
        length |= (message[at] & 0x7F) << 7 * (at - 1)
        if message[at] < 0x80:
            return at + 1, length
    raise ProtocolError(f"a chunk of {len(message)} bytes has no length")
