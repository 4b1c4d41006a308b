"""What a worker loads once and keeps: the verified weights, on a device.

Imports torch (through models): never imported by the process that listens.
"""

import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import structlog
import torch

from covidnet_node.analyze import analyze
from covidnet_node.case import Algorithm, Analysis, Reason
from covidnet_node.config import Analyze
from covidnet_node.errors import RetryLater
from covidnet_node.look import Picture
from covidnet_node.models.manifest import Manifest, load_manifest, weights_folder
from covidnet_node.models.networks import Networks, load_networks, memory_verdict
from covidnet_node.service.results import Maker

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Medicine:
    """Networks ready to answer, and the identity their reports carry."""

    networks: Networks
    algorithm: Algorithm
    program: str = ""
    """Version of this program."""
    spare: Callable[[], Networks] | None = None
    """The same networks on the CPU, for an image that the GPU has no memory for; None: on it."""

    @property
    def maker(self) -> Maker:
        """What results name as their origin."""
        return Maker(self.algorithm, self.program)

    def analyze(self, picture: Picture) -> Analysis:
        """Answer one image: on the device; out of memory, once more there; then on the CPU.

        Raises RetryLater when the CPU has no memory either.
        """
        try:
            return analyze(picture, self.networks)
        except RetryLater as verdict:
            if self.spare is None or verdict.reason is not Reason.OUT_OF_MEMORY:
                raise
        # Blocks that torch keeps for itself may be too small each; another program may be done.
        torch.cuda.empty_cache()
        try:
            return analyze(picture, self.networks)
        except RetryLater as verdict:
            log.warning("GPU_out_of_memory_analyzed_on_the_CPU", detail=verdict.detail, alert=True)
        return analyze(picture, self.spare())


def open_medicine(wanted: Analyze, device: str) -> Medicine:
    """Load the weights on `device`; raises BadConfig for a wrong hash or a missing file.

    With device "auto" in node.toml a GPU that torch cannot use means the CPU, and in any case a
    GPU without memory for the networks does; both said in the log.
    """
    # One core stays free for the listener, which must answer while a worker computes.
    torch.set_num_threads(wanted.threads or max(1, (os.cpu_count() or 2) - 1))
    folder = weights_folder(wanted.weights)
    manifest = load_manifest(folder)
    if wanted.device == "auto" and device.startswith("cuda") and not torch.cuda.is_available():
        log.warning("no_usable_GPU_working_on_the_CPU", wanted=device)
        device = "cpu"
    try:
        with memory_verdict():
            networks = load_networks(manifest, folder, device)
    except RetryLater as verdict:
        log.warning("GPU_out_of_memory_working_on_the_CPU", detail=verdict.detail, alert=True)
        networks = load_networks(manifest, folder, "cpu")
    log.info("networks_loaded", device=str(networks.device))
    program = importlib.metadata.version("covidnet-node")
    on_cpu = networks.device.type == "cpu"
    spare = None if on_cpu else cache(partial(_load_spare, manifest, folder))
    return Medicine(networks, manifest.algorithm, program, spare)


def _load_spare(manifest: Manifest, folder: Path) -> Networks:
    """Load the same weights on the CPU; raises RetryLater if others lie there by now."""
    now_there = load_manifest(folder)
    if now_there.algorithm.digest != manifest.algorithm.digest:
        words = "the GPU has too little free memory, and the weights on disk have changed"
        raise RetryLater(Reason.OUT_OF_MEMORY, words)
    return load_networks(now_there, folder, "cpu")
