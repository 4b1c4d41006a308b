"""`covidnet-node serve` with the stand-in worker, and with a clock that can be made to jump.

`python -m torture.serve NODE.TOML`.
"""

import os
import sys
from pathlib import Path

from covidnet_node.config import load_config
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.service.logs import configure_logs
from torture.clock import CLOCK_FILE, shift_clock

STANDIN = "torture.standin"
EX_UNAVAILABLE, EX_CONFIG = 69, 78


def main() -> None:
    """Exit statuses are those of `covidnet-node serve`."""
    from covidnet_node.service.run import serve  # noqa: PLC0415 - before the clock is replaced

    file = Path(sys.argv[1])
    config = load_config(file)
    configure_logs(config.log)
    clock = os.environ.get(CLOCK_FILE)
    if clock:
        shift_clock(Path(clock))
    try:
        serve(config, worker=STANDIN)
    except RetryLater:
        sys.exit(EX_UNAVAILABLE)
    except BadConfig:
        sys.exit(EX_CONFIG)


if __name__ == "__main__":
    main()
