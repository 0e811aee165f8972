"""Be a peer as the settings say: open the node, reach a target, answer callers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from interpeer._address import Address
from interpeer._cli.errors import CommandError, Misuse, explain
from interpeer._cli.output import Output
from interpeer._cli.settings import Settings, default_state
from interpeer._cli.target import Target
from interpeer._config import Config
from interpeer._connection import Connection
from interpeer._identity import Identity, PeerId
from interpeer._node import Node
from interpeer._state import StateLockedError
from interpeer.errors import IdentityFileError, InterpeerError, NetworkError

PING = "ping/1"
"""The protocol of `interpeer ping`: each datagram is sent back as it came. Every command that listens speaks it."""

SETTLE_S = 3.0
"""How long a command that listens waits for the peers of --bootstrap before it prints its address."""

logger = logging.getLogger("interpeer.cli")

Serve = Callable[[Connection], Awaitable[None]]


@asynccontextmanager
async def open_node(
    settings: Settings,
    output: Output,
    protocols: tuple[str, ...],
    allowed: Collection[PeerId] = (),
    reaching: PeerId | None = None,
) -> AsyncGenerator[Node]:
    """Open a node with the key and the state directory of the settings, and close it at the end.

    The default state directory serves one process at a time. One beside it uses a fresh key, and so does one that cannot
    write there, and one that is to reach the peer whose key is kept there: another process of the same user."""
    async with AsyncExitStack() as stack:
        identity, state = _who(settings)
        is_default = identity is None and settings.state is None

        async def enter(identity: Identity | Path | None, state: Path | None) -> Node:
            return await stack.enter_async_context(_node(settings, protocols, allowed, identity, state))

        try:
            node = await enter(identity, state)
        except ValueError as error:
            raise Misuse(str(error)) from None
        except StateLockedError:
            if not is_default:
                raise
            logger.info("another process uses the default state directory: this one has a fresh key, for this run")
            node = await enter(None, None)
        except (OSError, IdentityFileError) as error:
            if not is_default or not _is_state_out_of_order(state, error):
                raise
            output.warn(f"{explain(error)[0]}: going on with a fresh key, for this run")
            node = await enter(None, None)
        if is_default and node.id == reaching:
            await stack.aclose()
            node = await enter(None, None)
        yield node


async def settled_address(node: Node) -> Address:
    """Return the node's address once it tells the way through the peers of --bootstrap; what there is after SETTLE_S."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_S):
            await node.joined()
    return node.address


def _is_state_out_of_order(state: Path | None, error: OSError | IdentityFileError) -> bool:
    """Tell whether a state directory cannot be made or written: not that a key in it is damaged, or a port taken."""
    if state is None:
        return False
    if isinstance(error, IdentityFileError):
        return not os.path.lexists(state / "identity")
    return error.filename is not None


def _node(
    settings: Settings,
    protocols: tuple[str, ...],
    allowed: Collection[PeerId],
    identity: Identity | Path | None,
    state: Path | None,
) -> Node:
    return Node(
        identity,
        listen=settings.listen,
        network=settings.network,
        bootstrap=settings.bootstrap,
        state_dir=state,
        protocols=protocols,
        allow=allowed or None,
        lan=settings.lan,
        give=settings.as_give(),
        config=Config(connect_timeout_s=settings.timeout, qlog_dir=settings.qlog, tunnel_listen=settings.tunnel),
    )


def _who(settings: Settings) -> tuple[Identity | Path | None, Path | None]:
    """Return the identity, or None for the one in the state directory, and the state directory, or None for none."""
    if settings.seed is not None:
        return Identity.from_seed(settings.seed), settings.state
    if settings.key is not None:
        return settings.key, settings.state
    return None, settings.state or default_state()


async def reach(node: Node, target: Target, protocol: str) -> Connection:
    """Connect to a target. Raises what `Node.connect` raises, and CommandError for a call to oneself."""
    if target.peer_id == node.id:
        raise CommandError("the target has this command's own key: give one of the two ends another with --key or --state")
    try:
        return await node.connect(await target.resolve(), protocol)
    except ValueError as error:  # an address that makes no sense on this machine
        raise CommandError(str(error)) from None


async def answer_callers(node: Node, services: dict[str, Serve]) -> None:
    """Give every incoming connection to the service of its protocol, until cancelled; what one does harms no other."""
    async with asyncio.TaskGroup() as group:
        async for connection in node.incoming():
            group.create_task(_answer(connection, services[connection.protocol]))


async def _answer(connection: Connection, serve: Serve) -> None:
    try:
        async with connection:
            await serve(connection)
    except InterpeerError as error:
        logger.info("%s: %s", connection.peer_id, error)
    except Exception:
        logger.exception("%s: the service failed", connection.peer_id)


async def echo_datagrams(connection: Connection) -> None:
    """Answer pings, until the caller has had enough."""
    with suppress(NetworkError):
        while True:
            connection.send_datagrams(await connection.recv_datagrams())
