"""What every test may ask for: real images, real servers, strict writing."""

import os
import shutil
from pathlib import Path

import pydicom.config
import pytest

CI = os.environ.get("CI") == "true"


@pytest.fixture(autouse=True, scope="session")
def _strict_writing() -> None:
    """What we write must be valid; what we read may be anything."""
    pydicom.config.settings.writing_validation_mode = pydicom.config.RAISE


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and DICOM files beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        _absent("the shared folder of real images is not beside the repository")
    return folder


def need_program(name: str) -> str:
    """Path of an external program; skips visibly without it, fails under CI=true."""
    found = shutil.which(name)
    if found is None:
        _absent(f"{name} is not installed")
        raise AssertionError
    return found


def _absent(what: str) -> None:
    if CI:
        pytest.fail(f"{what}, and CI must not skip")
    pytest.skip(what)
