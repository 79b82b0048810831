import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import ProtocolError
from paceline.protos.coordinator_pb2 import Attach, PullBegin, PushResult, TransferDown, TransferUp
from paceline.protos.framing import CHUNK_BYTES, FIRST_CHUNK_BYTES, ChunkSize, crc32c, frame_chunk, parse_chunk


@pytest.mark.parametrize("size", [1, 127, 128, 16383, 16384, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_a_framed_chunk_is_the_message_that_protobuf_makes(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    framed = frame_chunk(memoryview(bytearray(data)))
    assert framed == TransferUp(chunk=data, chunk_crc32c=crc32c(data)).SerializeToString()
    assert framed == TransferDown(chunk=data, chunk_crc32c=crc32c(data)).SerializeToString()
    parsed = parse_chunk(framed)
    assert parsed is not None
    assert bytes(parsed[0]) == data
    assert parsed[1] == crc32c(data)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 5])
def test_a_checksum_in_pieces_is_that_of_the_whole(size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    assert crc32c(data) == google_crc32c.value(data)
    if data:
        assert crc32c(memoryview(bytearray(data))) == google_crc32c.value(data)


@pytest.mark.parametrize("cut", [0, 1, 777, CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
def test_a_checksum_goes_on_from_that_of_what_came_before(cut: int) -> None:
    data = bytes(range(251)) * (3 * CHUNK_BYTES // 251)
    assert crc32c(data[cut:], crc32c(data[:cut])) == google_crc32c.value(data)


def test_a_zero_checksum_that_was_left_out_is_read_as_zero() -> None:
    parsed = parse_chunk(TransferUp(chunk=b"abc").SerializeToString())
    assert parsed is not None
    assert parsed[1] == 0


@pytest.mark.parametrize(
    "message",
    [
        TransferUp(attach=Attach(incarnation="x", protocol_version=1)),
        TransferUp(),
        TransferDown(pull_begin=PullBegin(version=3)),
        TransferDown(push_result=PushResult(lease=3)),
    ],
)
def test_other_messages_are_no_chunks(message: TransferUp | TransferDown) -> None:
    assert parse_chunk(message.SerializeToString()) is None


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_cut_or_changed_chunk_is_misframed_or_fails_its_checksum(data: bytes, draw: st.DataObject) -> None:
    framed = bytearray(frame_chunk(memoryview(data)))
    at = draw.draw(st.integers(1, len(framed) - 1))
    if draw.draw(st.booleans()):
        del framed[at:]
    else:
        framed[at] ^= draw.draw(st.integers(1, 255))
    try:
        parsed = parse_chunk(bytes(framed))
    except ProtocolError:
        return
    assert parsed is not None
    view, crc = parsed
    assert crc32c(view) != crc


def test_the_checksum_is_that_of_the_standard() -> None:
    # RFC 3720, B.4: 32 bytes of zeros.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(memoryview(bytearray(32))) == 0x8A9136AA


def test_chunks_grow_with_quick_writes_and_shrink_with_slow_ones_within_bounds() -> None:
    size = ChunkSize()
    sizes = []
    for _ in range(20):
        sizes.append(size.bytes)
        size.wrote(0.001)
    assert sizes == [FIRST_CHUNK_BYTES << min(number // 4, 4) for number in range(20)]
    assert size.bytes == CHUNK_BYTES
    for seconds in (8.0, 4.0, 2.0, 1.0, 0.6, 0.6):
        size.wrote(seconds)
    assert size.bytes == FIRST_CHUNK_BYTES


def test_chunks_grow_only_after_quick_writes_in_a_row() -> None:
    size = ChunkSize()
    for _ in range(10):
        size.wrote(0.001)
        size.wrote(0.2)
    assert size.bytes == FIRST_CHUNK_BYTES
