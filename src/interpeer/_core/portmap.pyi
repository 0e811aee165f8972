from typing import TypeAlias

from typing_extensions import Buffer

_Filter: TypeAlias = tuple[int, int, bytes]  # bits of the address that count, port, address

# opcode, result, lifetime in seconds, epoch in seconds; of MAP alone: nonce, protocol, internal port, external port, external
# address of 16 bytes; options: third party, prefer failure, filters
_PcpAnswer: TypeAlias = tuple[int, int, int, int, bytes, int, int, int, bytes, bytes | None, bool, tuple[_Filter, ...]]

# opcode, result, epoch in seconds, external address of 4 bytes, internal port, external port, lifetime in seconds
_NatpmpAnswer: TypeAlias = tuple[int, int, int, bytes, int, int, int]

def pcp_announce(client: bytes) -> bytes: ...
def pcp_map(
    nonce: bytes,
    client: bytes,
    protocol: int,
    internal_port: int,
    external_port: int,
    external_address: bytes,
    lifetime_s: int,
) -> bytes: ...
def parse_pcp(data: Buffer) -> _PcpAnswer | None: ...
def natpmp_address() -> bytes: ...
def natpmp_map(internal_port: int, external_port: int, lifetime_s: int) -> bytes: ...
def parse_natpmp(data: Buffer) -> _NatpmpAnswer | None: ...
