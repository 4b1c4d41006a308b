"""A worker without torch: everything of a real one but the networks, which it makes up.

Claims, leases, spool, decoding, reports and their gate are the product's own. Its answers name no
weights, and only the driver of the torture can start it: no setting of the product leads here.
"""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np

from covidnet_node.case import (
    Algorithm,
    Analysis,
    Explanation,
    Member,
    Outcome,
    Probabilities,
    Reason,
)
from covidnet_node.config import Analyze
from covidnet_node.look import Picture, not_analyzed
from covidnet_node.service import analyzing
from covidnet_node.service.results import Maker
from torture.clock import CLOCK_FILE, shift_clock

ALGORITHM = Algorithm(
    name="Stand-in without networks",
    version="0-standin",
    digest="0" * 64,
    covid19_threshold=0.5,
    calibration="none: made up for a torture test",
    notice="Made up by a torture test",
)


class StandIn:
    """Answers at once, by digest alone: the same image, the same answer."""

    maker = Maker(ALGORITHM, "torture")

    def analyze(self, picture: Picture) -> Analysis:
        """One of the three outcomes, chosen by the digest."""
        seen = picture.pixel_digest + picture.identity_digest
        chance = hashlib.sha256(seen.encode()).digest()
        if chance[0] % 8 > 1:
            return not_analyzed(Reason.NO_PLAUSIBLE_LUNGS, "a stand-in looked", picture)
        covid19, pneumonia = chance[1] / 512, chance[2] / 512
        said = Probabilities(covid19, pneumonia, 1 - covid19 - pneumonia)
        rows, columns = picture.display.shape
        lungs = np.zeros((rows, columns), bool)
        lungs[rows // 5 : -rows // 5, columns // 6 : -columns // 6] = True
        doubtful = chance[0] % 8 == 1
        return Analysis(
            outcome=Outcome.INCONCLUSIVE if doubtful else Outcome.ANALYZED,
            reason=Reason.LOW_CONFIDENCE if doubtful else None,
            display=picture.display,
            lungs=lungs,
            lung_area_fraction=float(lungs.mean()),
            probabilities=said,
            members=(Member("A", said), Member("B", said)),
            disagreement=0.0,
            out_of_distribution=0.0,
            explanation=Explanation(lungs.astype(np.float32), said.called(0.5), 1.0),
            seconds={"decode": picture.seconds, "total": picture.seconds},
        )


def open_standin(_wanted: Analyze, _device: str) -> StandIn:
    """Nothing to load."""
    return StandIn()


def main() -> None:
    """As the product's worker, with a clock that the driver can make jump (`torture.serve`)."""
    clock = os.environ.get(CLOCK_FILE)
    if clock:
        shift_clock(Path(clock))
    analyzing.main(sys.argv[1:], open_standin)


if __name__ == "__main__":
    main()
