"""Port mapping: PCP, NAT-PMP and UPnP at the gateways of this host (docs/spec, chapter 25)."""

from interpeer._portmap.gateway import Gateway
from interpeer._portmap.mapper import Mapping, PortMapper

__all__ = ["Gateway", "Mapping", "PortMapper"]
