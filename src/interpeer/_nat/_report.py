"""What is known about the NATs in front of a node, in the words of RFC 4787 and RFC 5780."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

from interpeer._address import Endpoint

Behaviour = Literal["none", "endpoint-independent", "address-dependent", "address-and-port-dependent", "unknown"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NatReport:
    """Tell what was found out; "unknown" and None are what was not."""

    mapping: Behaviour = "unknown"
    """On what, besides our own socket, it depends which address and port peers see; "none": there is no NAT."""
    filtering: Behaviour = "unknown"
    """Of what comes to that address, what is let in: anything ("endpoint-independent", without a NAT "none"), or only what comes
    from an address, or from an address and port, that we have sent to."""
    hairpin: bool | None = None
    """Whether hosts behind the same NAT reach each other by their addresses outside."""
    lifetime_s: float | None = None
    """A mapping that is silent for so long still works; longer was not tried, or did not work."""
    port_step: int | None = None
    """How far apart the ports of mappings made one after the other are."""
    port_block: tuple[int, int] | None = None
    """The lowest and the highest port that mappings are likely to get, where that is a small part of all."""
    preserves_port: bool | None = None
    """Whether a mapping has the port of our own socket."""
    reflexive: tuple[Endpoint, ...] = ()
    """Addresses at which several observers see us, those that most agree on first."""
    udp: bool | None = None
    """Whether UDP gets through at all; None: nobody was asked."""
    is_disputed: bool = False
    """Whether an observer has seen another mapping than most: he lies, or two ports were the same by chance."""
    notes: tuple[str, ...] = ()
    """What makes any of this doubtful."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON has."""
        return {
            "mapping": self.mapping,
            "filtering": self.filtering,
            "hairpin": self.hairpin,
            "lifetime_s": self.lifetime_s,
            "port_step": self.port_step,
            "port_block": list(self.port_block) if self.port_block else None,
            "preserves_port": self.preserves_port,
            "reflexive": [str(endpoint) for endpoint in self.reflexive],
            "is_disputed": self.is_disputed,
            "notes": list(self.notes),
        }
