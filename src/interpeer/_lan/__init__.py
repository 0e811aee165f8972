"""Discovery on the local network, with no server and no Internet: by own beacons, multicast and broadcast, and by mDNS.

One `LanDiscovery` serves one node of a named network. It finds neighbours and says where they are; calling them, and so finding
out whether they are who they say, is the node's business.
"""

from interpeer._lan.discovery import LanDiscovery
from interpeer._lan.neighbours import Neighbour

__all__ = ["LanDiscovery", "Neighbour"]
