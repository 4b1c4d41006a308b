"""What a worker loads once and keeps: the verified weights, on a device.

Imports torch (through models): never imported by the process that listens.
"""

import importlib.metadata
import os
from dataclasses import dataclass

import structlog
import torch

from covidnet_node.case import Algorithm
from covidnet_node.config import Analyze
from covidnet_node.models.manifest import load_manifest, weights_folder
from covidnet_node.models.networks import Networks, load_networks
from covidnet_node.service.results import Maker

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Medicine:
    """Networks ready to answer, and the identity their reports carry."""

    networks: Networks
    algorithm: Algorithm
    device: str
    program: str = ""
    """Version of this program."""

    @property
    def maker(self) -> Maker:
        """What results name as their origin."""
        return Maker(self.algorithm, self.program)


def open_medicine(wanted: Analyze, device: str) -> Medicine:
    """Load the weights on `device`; raises BadConfig for a wrong hash or a missing file.

    With device "auto" in node.toml a GPU that torch cannot use means the CPU, said in the log.
    """
    # One core stays free for the listener, which must answer while a worker computes.
    torch.set_num_threads(wanted.threads or max(1, (os.cpu_count() or 2) - 1))
    folder = weights_folder(wanted.weights)
    manifest = load_manifest(folder)
    if wanted.device == "auto" and device.startswith("cuda") and not torch.cuda.is_available():
        log.warning("no_usable_GPU_working_on_the_CPU", wanted=device)
        device = "cpu"
    networks = load_networks(manifest, folder, device)
    program = importlib.metadata.version("covidnet-node")
    return Medicine(networks, manifest.algorithm, device, program)
