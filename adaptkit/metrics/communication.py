"""What goes over a network, in bytes, and how long that takes: by a model of the link, or measured on a real socket."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import onnx
from safetensors.torch import save
from torch import Tensor

from adaptkit.errors import DataError
from adaptkit.export.files import read_model
from adaptkit.export.staged import describe_value
from adaptkit.runtime.early_exit import ExitsManifest
from adaptkit.runtime.folder import FILE, read_manifest
from adaptkit.runtime.manifest import MANIFEST

_HEADER = struct.Struct("!QQ")
_PIECE = 1 << 16
_TIMEOUT = 30.0


class Traffic(NamedTuple):
    """Bytes of payload as serialized; headers of TCP and IP, about 3 % of large messages, come on top.

    Args:
        up: From the device to the server.
        down: Back.
    """

    up: float
    down: float


@dataclass(frozen=True)
class Link:
    """A network between a device and a server.

    Args:
        up: Bits a second from the device to the server.
        down: Bits a second back.
        round_trip: Seconds until the answer to an empty message.

    Raises:
        DataError: A bandwidth is not above 0, or the round trip is below 0.
    """

    up: float
    down: float
    round_trip: float

    def __post_init__(self) -> None:
        """Refuse what no link is."""
        if not (self.up > 0 and self.down > 0 and self.round_trip >= 0):
            raise DataError(f"a link has bandwidths above 0 and a round trip of at least 0; got {self}")

    def seconds(self, traffic: Traffic) -> float:
        """Say how long a message and its answer take: round trip + 8 up / bandwidth + 8 down / bandwidth.

        A connection that is open, and whose window has grown (no slow start), without losses: a lower bound of what a
        real one takes. Nothing sent is no exchange, and takes no time.

        Example:
            >>> Link(up=8e6, down=80e6, round_trip=0.02).seconds(Traffic(up=1_000_000, down=1_000_000))
            1.12
        """
        if traffic.up == traffic.down == 0:
            return 0.0
        return self.round_trip + 8 * traffic.up / self.up + 8 * traffic.down / self.down


def inference_traffic(path: Path, cut: int = 0, shares: Sequence[float] = (1.0,)) -> Traffic:
    """Count the bytes of one inference whose last part runs on a server, as expected over the samples.

    Args:
        path: A folder with an early exit in stages, of which any may be the first on the server; or an ONNX file, or a
            folder of one, which is there as a whole.
        cut: The first stage that runs on the server; 0 sends the input, the number of stages sends nothing.
        shares: Of the samples that leave at each exit; those that leave before the cut send nothing. They sum to 1.

    Raises:
        DataError: There is no such stage, or the shares do not fit.
        ModelError: There is no such model.
    """
    exits = traffic_of_exits(path, cut)
    if len(shares) != len(exits) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"shares are one of at least 0 a stage ({len(exits)}), and sum to 1; got {list(shares)}")
    up, down = (sum(share * way for share, way in zip(shares, ways, strict=True)) for ways in zip(*exits, strict=True))
    return Traffic(up, down)


def traffic_of_exits(path: Path, cut: int = 0) -> list[Traffic]:
    """Count the bytes of one inference, for the samples that leave at each exit; nothing before the cut.

    Args:
        path: As `inference_traffic`.
        cut: The first stage that runs on the server.

    Raises:
        DataError: There is no such stage.
        ModelError: There is no such model.
    """
    stages = _stages(path)
    if not 0 <= cut <= len(stages):
        raise DataError(f"the model has {len(stages)} stages: the cut is from 0 to {len(stages)}; got {cut}")
    return [
        Traffic(stages[cut].takes, stage.gives) if number >= cut else Traffic(0, 0)
        for number, stage in enumerate(stages)
    ]


def round_traffic(to_client: Mapping[str, Tensor], to_server: Mapping[str, Tensor], clients: int = 1) -> Traffic:
    """Count the bytes of one round of training on several clients, as safetensors writes what is sent.

    Args:
        to_client: The tensors that every client gets, such as the weights.
        to_server: The tensors that every client sends, such as an update.
        clients: How many take part.

    Raises:
        DataError: There is no client.

    Example:
        >>> import torch
        >>> weights = {"w": torch.zeros(1000)}
        >>> round_traffic(weights, {"w": weights["w"].half()}, clients=2)
        Traffic(up=4144, down=8144)
    """
    if clients < 1:
        raise DataError(f"a round has at least one client; got clients={clients}")
    return Traffic(up=clients * serialized_bytes(to_server), down=clients * serialized_bytes(to_client))


def serialized_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Count the bytes of tensors as safetensors writes them: values, names, shapes and types."""
    return len(save({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}))


def measure_loopback(traffic: Traffic, repeats: int = 50, warmup: int = 5) -> list[float]:
    """Time messages and their answers over a TCP connection of this machine to itself, through a real socket.

    That is what serving costs without a network: system calls, copies, and waking a thread. A `Link` adds the network.

    Args:
        traffic: Whole bytes up and down of each exchange; 16 bytes are sent with each to say so.
        repeats: Exchanges that are timed.
        warmup: Exchanges before the first of them.

    Returns:
        Seconds of each exchange.

    Raises:
        DataError: Bytes are no whole numbers of at least 0, or nothing is to be timed.

    Example:
        >>> len(measure_loopback(Traffic(up=1000, down=10), repeats=3))
        3
    """
    up, down = int(traffic.up), int(traffic.down)
    if (up, down) != (traffic.up, traffic.down) or min(up, down) < 0 or repeats < 1 or warmup < 0:
        raise DataError(f"give whole bytes of at least 0 and one repeat or more; got {traffic}, repeats={repeats}")
    message = _HEADER.pack(up, down) + bytes(up)
    with _answering_server() as address, socket.create_connection(address, timeout=_TIMEOUT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        seconds = [_exchange(connection, message, down) for _ in range(warmup + repeats)]
    return seconds[warmup:]


def _exchange(connection: socket.socket, message: bytes, answer: int) -> float:
    started = time.perf_counter()
    connection.sendall(message)
    if len(_receive(connection, answer + 1)) <= answer:
        raise ConnectionError("the answering thread has closed the connection")
    return time.perf_counter() - started


@contextlib.contextmanager
def _answering_server() -> Iterator[tuple[str, int]]:
    """Serve one connection on a thread, and give its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_TIMEOUT)
        thread = threading.Thread(target=_answer, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()
        thread.join(_TIMEOUT)


def _answer(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.settimeout(_TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while header := _receive(connection, _HEADER.size):
            up, down = _HEADER.unpack(header)
            _receive(connection, up)
            # One more, so that an empty answer is one too.
            connection.sendall(bytes(down + 1))


def _receive(connection: socket.socket, size: int) -> bytes:
    """Read so many bytes; fewer where the other side has closed."""
    received = bytearray()
    while len(received) < size:
        piece = connection.recv(min(_PIECE, size - len(received)))
        if not piece:
            break
        received += piece
    return bytes(received)


@dataclass(frozen=True)
class _Stage:
    """Bytes that a stage takes and answers, for one sample."""

    takes: int
    gives: int


def _stages(path: Path) -> list[_Stage]:
    if not (path / MANIFEST).is_file():
        graph = read_model(path / FILE if path.is_dir() else path).graph
        return [_Stage(_bytes_of(graph.input[0]), _bytes_of(graph.output[0]))]
    manifest = read_manifest(path)
    if not isinstance(manifest, ExitsManifest):
        raise DataError(f"{path} is of kind {manifest.kind}; bytes on the wire are known of an early exit in stages")
    return [
        _Stage(stage.takes.bytes, _output_bytes(read_model(path / stage.file), stage.logits))
        for stage in manifest.stages
    ]


def _output_bytes(proto: onnx.ModelProto, name: str) -> int:
    return next(_bytes_of(output) for output in proto.graph.output if output.name == name)


def _bytes_of(info: onnx.ValueInfoProto) -> int:
    value = describe_value(info)
    if 0 in value.shape:
        raise DataError(f"{value.name} has no fixed size, only its batch may vary: its bytes are not known")
    return value.bytes
