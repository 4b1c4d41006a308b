"""How a destination is reached: one face for C-STORE and STOW-RS."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from covidnet_node import deliver, deliver_web
from covidnet_node.associate import target_of
from covidnet_node.case import Result
from covidnet_node.config import Destination
from covidnet_node.deliver import Fate, Sent


@dataclass(frozen=True, slots=True)
class Door:
    """A destination, ready to be called."""

    where: str
    """For a person: whom it calls."""
    question: str
    """How `echo` asks."""
    send: Callable[[Sequence[Result]], Iterator[Sent]]
    """Yields one fate for each result, in order, each before the next is sent; raises nothing."""
    echo: Callable[[], str | None]
    """None if the destination is there, else a sentence why not."""


def door_to(destination: Destination, node_ae: str, *, sender_ae: str = "", peer: str = "") -> Door:
    """Find the way to a destination; sender and peer matter where results go back to the sender."""
    if destination.url is not None:
        web = deliver_web.web_target_of(destination)
        return Door(
            where=web.url,
            question="over HTTP",
            send=partial(deliver_web.send, web),
            echo=partial(deliver_web.echo, web),
        )
    target = target_of(destination, sender_ae=sender_ae, peer=peer)
    calling_ae = destination.calling_ae or node_ae
    return Door(
        where=f"{target.ae_title} at {target.host}:{target.port}",
        question="C-ECHO",
        send=lambda results: deliver.send(target, results, calling_ae),
        echo=partial(deliver.echo, target, calling_ae),
    )


def closed_door(why: str) -> Door:
    """Whatever is sent this way stays here."""

    def send(results: Sequence[Result]) -> Iterator[Sent]:
        for each in results:
            yield Sent(each.sop_instance_uid, Fate.NOT_TRIED, None, why, permanent=True)

    return Door(where="nobody", question="", send=send, echo=lambda: why)
