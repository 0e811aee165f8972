"""Let only known peers in, by their keys; everybody else is refused before it costs anything.

Prints:

    the friend is let in
    the stranger: refused
"""

import interpeer


async def main() -> None:
    friend, stranger = interpeer.Identity.generate(), interpeer.Identity.generate()
    async with (
        interpeer.Node(allow={friend.id}) as server,
        interpeer.Node(identity=friend) as a,
        interpeer.Node(identity=stranger) as b,
    ):
        async with a.connect(server.address):
            accepted = await server.accept()
            assert accepted.peer_id == friend.id
            print("the friend is let in")
        try:
            await b.connect(server.address)
        except interpeer.Refused:
            print("the stranger: refused")


interpeer.run(main())
