"""Synthetic chest X-rays, drawn from mathematics, as pictures and as DICOM objects.

For `demo`, tests and connection checks. Never a patient: names and ids say PHANTOM, and no
figure of the model card is measured on these.
"""

import hashlib
import math
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, zoom

from covidnet_node.intended_use import MANUFACTURER, PRODUCT
from covidnet_node.phantom.anatomy import Body, draw_chest, fill_diffusely, fill_lobe

Opacity = Literal["none", "diffuse", "lobar"]
Photometric = Literal["MONOCHROME1", "MONOCHROME2"]

_DRAWN_SIDE = 768
"""Longer side at which anatomy is drawn; larger films are enlarged from it, then get noise."""
_FILM_MILLIMETERS = 400.0
"""Shorter side of the film at the detector."""
_DATE = "20200401"
_YEAR = 2020
_NAMES = {"none": "PHANTOM^NORMAL", "diffuse": "PHANTOM^DIFFUSE", "lobar": "PHANTOM^LOBAR"}
_CHEST = ("816094009", "SCT", "Chest")
_VIEWS = {
    "PA": ("272479007", "SCT", "postero-anterior"),
    "AP": ("399348003", "SCT", "antero-posterior"),
    "LL": ("399173006", "SCT", "left lateral"),
    "RL": ("399198007", "SCT", "right lateral"),
}
_CLASSES = {
    "CR": uid.ComputedRadiographyImageStorage,
    "DX": uid.DigitalXRayImageStorageForPresentation,
}
_LOSSY_METHODS = {
    uid.JPEGBaseline8Bit: "ISO_10918_1",
    uid.JPEGLSNearLossless: "ISO_14495_1",
    uid.JPEG2000: "ISO_15444_1",
}
_JPEG_LS_ERROR = 2
"""Largest error of a near-lossless gray, in stored values."""


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic film."""

    image: NDArray[np.uint16]
    """(rows, columns), 0 black to 65535 white, dense tissue bright."""
    lungs: NDArray[np.bool_]
    """(rows, columns), the lung fields without heart and diaphragm."""


def draw_phantom(
    seed: int, opacity: Opacity = "none", rows: int = 1024, columns: int = 1024
) -> Phantom:
    """Draw a frontal chest film; the same arguments give the same pixels.

    The seed varies size, rotation and asymmetry of the body. `opacity` is none, diffuse
    (bilateral peripheral ground glass) or lobar (one consolidated lobe).
    """
    rng = np.random.default_rng(seed)
    shrink = min(1.0, _DRAWN_SIDE / max(rows, columns))
    drawn = max(2, round(rows * shrink)), max(2, round(columns * shrink))
    body = _person(rng, *drawn)
    chest = draw_chest(body, rng)
    tissue = chest.tissue
    if opacity != "none":
        fill = fill_diffusely if opacity == "diffuse" else fill_lobe
        tissue = tissue + chest.air * fill(body, rng)
    film = _film(np.clip(tissue, 0.0, None), body.scale)
    gray = _enlarge(film, rows, columns)
    lungs = _enlarge(chest.lungs.astype(np.float64), rows, columns) > 0.5
    grain = gaussian_filter(rng.standard_normal((rows, columns), dtype=np.float32), 0.6)
    noisy = gray + grain * (0.006 + 0.012 * gray)
    return Phantom(np.clip(noisy * 65535.0, 0, 65535).astype(np.uint16), lungs)


def _person(rng: np.random.Generator, rows: int, columns: int) -> Body:
    """Body coordinates and measures of the person that a seed stands for."""
    scale = min(rows, columns) * rng.uniform(0.95, 1.06)
    turn = math.radians(rng.normal(0.0, 1.2))
    shift = rng.normal(0.0, 0.01, 2)
    down, across = np.mgrid[0:rows, 0:columns].astype(np.float64)
    x = (across - (columns - 1) / 2) / scale - shift[0]
    y = (down - (rows - 1) / 2) / scale - shift[1]
    width = rng.uniform(0.345, 0.385)
    dome = rng.uniform(0.665, 0.715)
    return Body(
        u=x * math.cos(turn) - y * math.sin(turn),
        v=x * math.sin(turn) + y * math.cos(turn) + 0.5,
        scale=scale,
        lung_width=(width, width * rng.uniform(0.95, 1.02)),
        dome=(dome, dome + rng.uniform(0.01, 0.035)),
        apex=rng.uniform(0.085, 0.115),
        heart=rng.uniform(0.92, 1.1),
        depth=rng.uniform(20.0, 24.0),
    )


def _film(tissue: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Gray of a film, 0 to 1, from cm of water: scatter, then the characteristic curve."""
    scattered = 0.88 * tissue + 0.12 * gaussian_filter(tissue, 0.05 * scale)
    blurred = gaussian_filter(scattered, 0.0010 * scale)
    curve = PchipInterpolator(
        [0.0, 1.0, 6.0, 9.0, 13.0, 18.0, 23.0, 28.0, 60.0],
        [0.02, 0.06, 0.26, 0.37, 0.55, 0.76, 0.88, 0.95, 1.0],
    )
    return np.asarray(curve(np.clip(blurred, 0.0, 60.0)), dtype=np.float64)


def _enlarge(drawn: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    if drawn.shape == (rows, columns):
        return drawn
    factors = rows / drawn.shape[0], columns / drawn.shape[1]
    enlarged: NDArray[np.float64] = zoom(drawn, factors, order=1, mode="nearest", grid_mode=True)
    return enlarged


def phantom_dataset(
    seed: int,
    opacity: Opacity = "none",
    *,
    rows: int = 1024,
    columns: int = 1024,
    modality: Literal["CR", "DX"] = "CR",
    photometric: Photometric = "MONOCHROME2",
    bits: int = 12,
    window: bool = True,
    age: int | None = 47,
    view: str = "PA",
    transfer_syntax: str = uid.ExplicitVRLittleEndian,
    charset: str | list[str] = "ISO_IR 100",
    name: str = "",
    patient_id: str = "",
    study_uid: str = "",
    series_uid: str = "",
    sop_uid: str = "",
) -> FileDataset:
    """A complete, valid CR or DX object for presentation that holds a phantom.

    Bits Stored 8 to 16. UIDs come from the seed alone unless given, so vary the seed for
    another image. `age` in years, None for unknown; `view` as in View Position (always drawn
    frontal). Transfer syntaxes: the native ones, RLE, JPEG baseline (8 bits), JPEG-LS and
    JPEG 2000; ValueError for others. DX without a window breaks its own module on purpose.
    PS3.3 A.2 (CR) and A.26 (DX).
    """
    phantom = draw_phantom(seed, opacity, rows, columns)
    stored = _stored(phantom.image, photometric, bits)
    dataset = Dataset()
    dataset.SpecificCharacterSet = charset
    dataset.SOPClassUID = _CLASSES[modality]
    dataset.SOPInstanceUID = sop_uid or _uid("instance", seed)
    dataset.StudyInstanceUID = study_uid or _uid("study", seed)
    dataset.SeriesInstanceUID = series_uid or _uid("series", seed)
    dataset.Modality = modality
    dataset.PatientName = name or _NAMES[opacity]
    dataset.PatientID = patient_id or f"CNN-PHANTOM-{seed:04d}"
    _add_patient_and_study(dataset, seed, age)
    _add_image(dataset, view)
    if modality == "DX":
        _add_dx(dataset, view)
    _add_display(dataset, stored, photometric, bits, modality, window=window)
    return _with_pixels(dataset, stored, uid.UID(transfer_syntax))


def _uid(kind: str, seed: int) -> uid.UID:
    """A UID of the 2.25 arc from a hash (PS3.5 B.2), the same for the same seed."""
    digest = hashlib.sha256(f"CovidNet Node phantom {kind} {seed}".encode()).digest()
    return uid.UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def _stored(image: NDArray[np.uint16], photometric: Photometric, bits: int) -> NDArray[Any]:
    """Gray of 16 bits as stored values of `bits`, the same picture at every depth."""
    if not 8 <= bits <= 16:
        raise ValueError(f"{bits} bits: a phantom has 8 to 16")
    peak = (1 << bits) - 1
    scaled = np.rint(image.astype(np.float64) * (peak / 65535.0))
    if photometric == "MONOCHROME1":
        scaled = peak - scaled
    return scaled.astype(np.uint8 if bits == 8 else np.uint16)


def _add_patient_and_study(dataset: Dataset, seed: int, age: int | None) -> None:
    dataset.PatientBirthDate = "" if age is None else f"{_YEAR - age:04d}0101"
    dataset.PatientSex = "O"
    if age is not None:
        dataset.PatientAge = f"{age:03d}Y"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = _DATE
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = "120000"
    dataset.ContentTime = "120000"
    dataset.AccessionNumber = f"PH{seed:06d}"
    dataset.StudyID = f"PH{seed:06d}"
    dataset.ReferringPhysicianName = "PHANTOM^PHYSICIAN"
    dataset.StudyDescription = "Synthetic chest phantom"


def _add_image(dataset: Dataset, view: str) -> None:
    """General series, equipment and image; the CR series and image modules (PS3.3 C.8.1)."""
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.SeriesDescription = "Synthetic chest phantom"
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = f"{PRODUCT} phantom"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = view
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"


def _add_dx(dataset: Dataset, view: str) -> None:
    """DX series, anatomy, detector, positioning and acquisition context (PS3.3 C.8.11)."""
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageType = ["DERIVED", "PRIMARY", ""]
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = Sequence([_code(*_CHEST)])
    dataset.DetectorType = "DIRECT"
    dataset.DetectorID = "PHANTOM"
    dataset.PositionerType = "NONE"
    if view in _VIEWS:
        item = _code(*_VIEWS[view])
        item.ViewModifierCodeSequence = Sequence()
        dataset.ViewCodeSequence = Sequence([item])
    dataset.AcquisitionContextSequence = Sequence()
    dataset.AcquisitionDeviceProcessingDescription = ""


def _add_display(
    dataset: Dataset,
    stored: NDArray[Any],
    photometric: Photometric,
    bits: int,
    modality: str,
    *,
    window: bool,
) -> None:
    """Image pixel and display attributes (PS3.3 C.7.6.3, C.11)."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = stored.itemsize * 8
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    spacing = f"{_FILM_MILLIMETERS / min(stored.shape):.6f}"
    dataset.ImagerPixelSpacing = [spacing, spacing]
    if modality == "DX":
        dataset.PixelIntensityRelationship = "LOG"
        dataset.PixelIntensityRelationshipSign = -1 if photometric == "MONOCHROME1" else 1
        dataset.RescaleIntercept, dataset.RescaleSlope = "0", "1"
        dataset.RescaleType = "US"
        inverse = photometric == "MONOCHROME1"
        dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    if window:
        dataset.WindowCenter = str(1 << (bits - 1))
        dataset.WindowWidth = str(1 << bits)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _with_pixels(dataset: Dataset, stored: NDArray[Any], syntax: uid.UID) -> FileDataset:
    """Encode the pixels and wrap the data set as a file (PS3.10 section 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.ImplementationClassUID = _uid("implementation", 0)
    meta.ImplementationVersionName = "CNN_PHANTOM"
    native = not syntax.is_compressed or syntax == uid.DeflatedExplicitVRLittleEndian
    meta.TransferSyntaxUID = syntax if native else uid.ExplicitVRLittleEndian
    order = stored.dtype.newbyteorder("<" if syntax.is_little_endian else ">")
    data = stored.astype(order).tobytes()
    data += b"\0" * (len(data) % 2)
    implicit = native and syntax.is_implicit_VR
    file = FileDataset(BytesIO(), dataset, b"\0" * 128, meta, implicit, syntax.is_little_endian)
    file.add_new("PixelData", "OB" if stored.itemsize == 1 and not implicit else "OW", data)
    if not native:
        _compress(file, stored, syntax, len(data))
    return file


def _compress(file: FileDataset, stored: NDArray[Any], syntax: uid.UID, size: int) -> None:
    if syntax in {uid.RLELossless, uid.JPEGLSLossless}:
        file.compress(syntax, generate_instance_uid=False)
    elif syntax == uid.JPEGLSNearLossless:
        file.compress(syntax, jls_error=_JPEG_LS_ERROR, generate_instance_uid=False)
    else:
        file.PixelData = encapsulate([_by_pillow(stored, syntax)])
        file["PixelData"].VR = "OB"
        file["PixelData"].is_undefined_length = True
        file.file_meta.TransferSyntaxUID = syntax
    if syntax in _LOSSY_METHODS:
        file.LossyImageCompression = "01"
        file.LossyImageCompressionRatio = f"{size / len(file.PixelData):.3f}"
        file.LossyImageCompressionMethod = _LOSSY_METHODS[syntax]


def _by_pillow(stored: NDArray[Any], syntax: uid.UID) -> bytes:
    frame = BytesIO()
    image = Image.fromarray(stored)
    if syntax == uid.JPEGBaseline8Bit and stored.itemsize == 1:
        image.save(frame, "JPEG", quality=92)
    elif syntax == uid.JPEG2000Lossless:
        image.save(frame, "JPEG2000", no_jp2=True, irreversible=False)
    elif syntax == uid.JPEG2000:
        image.save(frame, "JPEG2000", no_jp2=True, irreversible=True, quality_layers=[8.0])
    else:
        raise ValueError(f"a phantom of {stored.itemsize * 8} bits is not written as {syntax.name}")
    return frame.getvalue()
