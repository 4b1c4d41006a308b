"""A scripted DICOM client on a plain socket: says exactly what a test wants said."""

import socket
import ssl
import struct
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.dsutils import decode
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.transport import AddressInformation

ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 2, 3, 4, 5, 6, 7
LAST, COMMAND = 2, 1

VERIFICATION = "1.2.840.10008.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
SC = "1.2.840.10008.5.1.4.1.1.7"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"


def padded(uid: str) -> bytes:
    """A UID as bytes of even length."""
    raw = uid.encode()
    return raw + b"\0" * (len(raw) % 2)


def request_pdu(contexts, *, calling="SENDER", called="COVIDNET") -> bytes:
    """An A-ASSOCIATE-RQ for (abstract syntax, transfer syntaxes) pairs."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    length, identity = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    identity.implementation_class_uid = UID("1.2.3.4")
    primitive.user_information = [length, identity]
    primitive.calling_presentation_address = AddressInformation("127.0.0.1", 1)
    primitive.called_presentation_address = AddressInformation("127.0.0.1", 2)
    proposed = [build_context(abstract, list(syntaxes)) for abstract, syntaxes in contexts]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = proposed
    return A_ASSOCIATE_RQ(primitive).encode()


class RawClient:
    """One connection; every read has a deadline."""

    def __init__(
        self,
        address: tuple[str, int],
        deadline: float = 20,
        tls: ssl.SSLContext | None = None,
        source: str = "",
    ) -> None:
        origin = (source, 0) if source else None
        self.socket = socket.create_connection(address, deadline, origin)
        if tls is not None:
            # An end without a farewell is an error, so that a test sees it.
            self.socket = tls.wrap_socket(
                self.socket, server_hostname=address[0], suppress_ragged_eofs=False
            )
        self.results: dict[int, int] = {}
        self.max_pdu = 0

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Type and body of the next PDU; type 0 when the node has hung up."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        return header[0], self._exactly(struct.unpack(">L", header[2:])[0])

    def _exactly(self, count: int) -> bytes:
        whole = b""
        while len(whole) < count:
            try:
                piece = self.socket.recv(count - len(whole))
            except ConnectionResetError:
                piece = b""
            if not piece:
                break
            whole += piece
        return whole

    def associate(self, *contexts, **titles: str) -> int:
        """Ask for an association; the type of the answer."""
        self.send(request_pdu(contexts, **titles))
        kind, body = self.receive()
        if kind == ASSOCIATE_AC:
            answer = A_ASSOCIATE_AC()
            answer.decode(struct.pack(">BBL", kind, 0, len(body)) + body)
            self.results = {item.context_id: item.result for item in answer.presentation_context}
            self.max_pdu = answer.user_information.maximum_length
        return kind

    def fragment(self, data: bytes, control: int, context: int = 1) -> None:
        """One P-DATA-TF with one fragment."""
        item = struct.pack(">LBB", len(data) + 2, context, control) + data
        self.send(struct.pack(">BBL", P_DATA, 0, len(item)) + item)

    def command(self, sop_class: str, instance: str, context: int = 1, field: int = 1) -> None:
        """A C-STORE-RQ (or another) that announces a data set."""
        us = struct.Struct("<H").pack
        elements = [(0x0002, padded(sop_class)), (0x0100, us(field)), (0x0110, us(7))]
        elements += [(0x0700, us(0)), (0x0800, us(1))]
        if instance:
            elements.append((0x1000, padded(instance)))
        # By hand, Implicit VR Little Endian (PS3.7 6.3.1): pydicom would not write a bad UID.
        command = b"".join(struct.pack("<HHL", 0, tag, len(raw)) + raw for tag, raw in elements)
        self.fragment(command, COMMAND | LAST, context)

    def data(self, data: bytes, context: int = 1, piece: int = 60_000) -> None:
        """A whole data set in pieces."""
        starts = range(0, max(len(data), 1), piece)
        for start in starts:
            last = start + piece >= len(data)
            self.fragment(data[start : start + piece], LAST if last else 0, context)

    def status(self) -> int | None:
        """Status of the next response; None when aborted or hung up."""
        kind, body = self.receive()
        if kind != P_DATA:
            return None
        return int(decode(BytesIO(body[6:]), True, True).Status)

    def store(self, sop_class: str, instance: str, data: bytes, context: int = 1) -> int | None:
        """A whole C-STORE; its status."""
        self.command(sop_class, instance, context)
        self.data(data, context)
        return self.status()

    def release(self) -> None:
        """Release and wait for the answer."""
        self.send(struct.pack(">BBLL", RELEASE_RQ, 0, 4, 0))
        assert self.receive()[0] == RELEASE_RP


def body_of(path: Path) -> tuple[str, str, str, bytes]:
    """SOP class, instance, transfer syntax and data set of any file, as far as told."""
    data = path.read_bytes()
    try:
        header = dcmread(path, force=True, stop_before_pixels=True)
    except Exception:  # noqa: BLE001 - not DICOM: its bytes are sent all the same
        return CR, "1.2.3", EXPLICIT, data
    sop_class = str(header.get("SOPClassUID", "")) or CR
    instance = str(header.get("SOPInstanceUID", "")) or "1.2.3"
    meta = header.file_meta
    syntax = str(meta.get("TransferSyntaxUID", "")) or IMPLICIT
    start = 0
    if data[128:132] == b"DICM":
        length = meta.get("FileMetaInformationGroupLength")
        start = 144 + length if length is not None else 132
    return sop_class, instance, syntax, data[start:]
