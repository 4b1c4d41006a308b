"""Who may associate: AE titles bound to addresses and certificates (`[[receive.peer]]`)."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from covidnet_node.certificates import Identity, has, wanted
from covidnet_node.config import Receive
from covidnet_node.config_doors import Peer
from covidnet_node.receive.crowd import plain_address


@dataclass(frozen=True, slots=True)
class _Entry:
    calling_aes: frozenset[str]
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    certificates: tuple[tuple[str, object], ...]

    def has_address(self, host: str) -> bool:
        address = plain_address(host)
        return not self.networks or any(
            address is not None and address.version == network.version and address in network
            for network in self.networks
        )

    def has_title(self, calling_ae: str) -> bool:
        return not self.calling_aes or calling_ae in self.calling_aes

    @property
    def names_a_place(self) -> bool:
        """Whether it names a title or an address at all."""
        return bool(self.calling_aes or self.networks)

    def has_certificate(self, identity: Identity | None) -> bool:
        return not self.certificates or (
            identity is not None and any(has(identity, *each) for each in self.certificates)
        )


class AllowList:
    """The entries of `[[receive.peer]]` and `receive.calling_aes`, which must both agree.

    Raises BadConfig for a certificate's subject that cannot be read.
    """

    def __init__(self, receive: Receive) -> None:
        self._titles = frozenset(receive.calling_aes)
        self._entries = tuple(_entry(number, peer) for number, peer in enumerate(receive.peer))

    def knows_address(self, host: str) -> bool:
        """Whether any entry could match a client from there, whatever it says later."""
        return not self._entries or any(each.has_address(host) for each in self._entries)

    def complaint(self, calling_ae: str, host: str, identity: Identity | None) -> str:
        """Empty if it may associate, else what does not fit: a word for log and journal."""
        if self._titles and calling_ae not in self._titles:
            return "calling_ae"
        if not self._entries:
            return ""
        titled = [each for each in self._entries if each.has_title(calling_ae)]
        placed = [each for each in titled if each.has_address(host)]
        if any(each.has_certificate(identity) for each in placed):
            return ""
        if not titled:
            return "calling_ae"
        return "certificate" if placed else "address"

    def may_receive(self, ae_title: str, host: str) -> bool:
        """Whether results may go back to a sender, by its title and address.

        Its certificate was checked when it sent the image, and is not known any more: an entry that
        names nothing else allows nobody here.
        """
        if self._titles and ae_title not in self._titles:
            return False
        named = [each for each in self._entries if each.names_a_place]
        return not self._entries or _any(named, ae_title, host)


def _any(entries: Iterable[_Entry], ae_title: str, host: str) -> bool:
    return any(each.has_title(ae_title) and each.has_address(host) for each in entries)


def _entry(number: int, peer: Peer) -> _Entry:
    key = f"receive.peer.{number}.certificates"
    return _Entry(
        frozenset(peer.calling_aes),
        tuple(ipaddress.ip_network(each) for each in peer.addresses),
        tuple(wanted(each, key) for each in peer.certificates),
    )
