"""One fuzzer on one target, until its time is up or it has found something.

    python -m fuzz.one TARGET CORPUS_FOLDER [flags of libFuzzer]

Started by `fuzz.run`. Findings become files of the folder that `-artifact_prefix` names.
"""

import logging
import sys
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path

import atheris

# Only what reads a stranger's bytes: the rest would make it slower and lead it astray.
with atheris.instrument_imports(include=["pydicom.filereader", "pydicom.charset", "pydicom.encaps",
                                         "pydicom.fileutil", "pydicom.values"]):  # fmt: skip
    import pydicom  # noqa: F401 - imported in order to be instrumented
with atheris.instrument_imports(include=["pynetdicom"], exclude=["pynetdicom.sop_class"]):
    import pynetdicom  # noqa: F401 - as pydicom
import highdicom  # noqa: F401 - not to be instrumented: large, and reads nothing

with atheris.instrument_imports(include=["covidnet_node"]):
    from fuzz.targets import TARGETS, Target, Wire
    from tests.bad_input.talk import watched
    from tests.receive_kit import Site


def wire(stack: ExitStack) -> Target:
    """The real listener in this process, on a port of its own."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    site = Site(folder, network_timeout_s=5)
    stack.callback(site.receiver.stop, 1)
    watch = stack.enter_context(watched())
    return Wire(site.address, watch)


def main() -> None:
    """Fuzz; ends with the process."""
    name = sys.argv.pop(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with ExitStack() as stack:
        target = wire(stack) if name == "wire" else TARGETS[name]
        atheris.Setup(sys.argv, target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
