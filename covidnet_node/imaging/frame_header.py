"""What a compressed frame says of itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Geometry of a compressed frame."""

    rows: int
    columns: int
    components: int
    precision: int
    """Bits per sample."""
    process: int = 0
    """SOF marker of a JPEG or JPEG-LS frame, which names its coding process; 0 for JPEG 2000."""
