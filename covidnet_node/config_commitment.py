"""The table `[destination.commitment]` of node.toml (part of `config`)."""

from typing import Annotated, Literal

from pydantic import Field

from covidnet_node.config_doors import AETitle, Network, Section


class Commitment(Section):
    """Whether a destination must say that it keeps what it has stored, and how it is asked."""

    ask: Literal["off", "request", "find", "request_or_find"] = "off"
    """`request`: storage commitment (PS3.4 Annex J). `find`: a query for each instance, which
    shows that it is there, not that it will stay. `request_or_find`: the query where the request
    is refused or not answered in time. `off`: done means stored."""
    wait_s: Annotated[float, Field(ge=0, le=3600)] = 10
    """How long the association stays open for the answer; later it comes on one of its own."""
    timeout_s: Annotated[float, Field(gt=0)] = 3600
    """For the answer on whatever association; then it is asked anew, under a new UID."""
    attempts: Annotated[int, Field(ge=1, le=1000)] = 10
    """Questions without a yes after which the case is parked with an alert."""
    calling_aes: tuple[AETitle, ...] = ()
    """AE titles that may bring the answer, besides the destination's own."""
    addresses: tuple[Network, ...] = ()
    """Where they may call from, besides the address that was asked."""

    @property
    def requested(self) -> bool:
        """Whether a storage commitment request goes out, and its answer may come in."""
        return self.ask in {"request", "request_or_find"}
