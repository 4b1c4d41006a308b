"""What the node negotiates: SOP classes and transfer syntaxes, as tables."""

from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class

from covidnet_node.admit import RADIOGRAPHS, RESULT_CLASSES, SECONDARY_CAPTURE
from covidnet_node.commit import SOP_CLASS as COMMITMENT
from covidnet_node.config import Receive
from covidnet_node.errors import BadConfig

VERIFICATION = "1.2.840.10008.1.1"
UNCOMPRESSED = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
)
DEFLATED = "1.2.840.10008.1.2.1.99"

TRANSFER_SYNTAXES = (
    *UNCOMPRESSED,
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    DEFLATED,
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
)
"""In order of preference, for a sender that offers several in one context.

Such a sender would convert. Uncompressed first: nothing can go wrong in a decoder. Then what
keeps every bit, the widely decoded first. Lossy last: it must come only from a sender that
has nothing else, never be made for us. Explicit VR before implicit: private elements keep
their VR.
"""


def storage_classes(receive: Receive) -> frozenset[str]:
    """SOP classes that C-STORE is accepted for."""
    by_default = RADIOGRAPHS | RESULT_CLASSES | {SECONDARY_CAPTURE}
    return (by_default | set(receive.accept_classes)) - set(receive.refuse_classes)


def supported_contexts(receive: Receive, *, reports: bool = False) -> list[PresentationContext]:
    """Build the contexts an association may have; raises BadConfig for other services' classes.

    `reports`: those of storage commitment, from a peer that is their SCP (PS3.4 J.3.3.1.3).
    """
    classes = sorted(storage_classes(receive))
    for uid in classes:
        _make_known(uid)
    storage = [build_context(uid, list(TRANSFER_SYNTAXES)) for uid in classes]
    accepted = [build_context(VERIFICATION, list(UNCOMPRESSED)), *storage]
    if reports:
        commitment = build_context(COMMITMENT, list(UNCOMPRESSED))
        # PS3.7 D.3.3.4, as the requestor's roles. One that names none is heard as well.
        commitment.scu_role, commitment.scp_role = False, True
        accepted.append(commitment)
    return accepted


def _make_known(uid: str) -> None:
    """Tell pynetdicom that a class it does not know, a private one, is for storage."""
    service = uid_to_service_class(uid)
    if service is ServiceClass:
        register_uid(uid, f"Configured_{uid.replace('.', '_')}", StorageServiceClass)
    elif service is not StorageServiceClass:
        raise BadConfig("node.toml", "receive.accept_classes", f"{uid} is not a storage SOP class")
