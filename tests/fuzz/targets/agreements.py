"""Fresh keys: two ends whose messages are lost, repeated, delayed and damaged, with key updates between."""

from interpeer._core.probe_rekey import Machine
from tests.fuzz.source import Source

SECOND = 10**9


class End:
    """A machine, and what has been said to it and has not arrived."""

    def __init__(self, number: int, *, is_initiator: bool) -> None:
        secrets = (b"i" * 32, b"r" * 32) if is_initiator else (b"r" * 32, b"i" * 32)
        self.machine = Machine(bytes([number]) * 32, is_initiator, *secrets, interval_ns=SECOND)
        self.waiting: list[tuple[bytes, int]] = []  # frames, and the epoch of their packet


def feed(data: bytes) -> None:
    source = Source(data)
    left, right = End(1, is_initiator=True), End(2, is_initiator=False)
    now_ns, is_broken = 1, False
    for i in range(300):
        if not source or is_broken:
            break
        end, other = (left, right) if source.byte(2) else (right, left)
        now_ns += source.number(10 * SECOND)
        is_broken = not step(source, end, other, i.to_bytes(32), now_ns)
    if not is_broken and left.machine.state["state"] == right.machine.state["state"] == "idle":
        assert left.machine.secrets[2] == right.machine.secrets[2], "the chains differ"
        assert left.machine.state["count"] == right.machine.state["count"]


def step(source: Source, end: End, other: End, ephemeral: bytes, now_ns: int) -> bool:
    """Do one thing at one end; return whether the connection would stay open."""
    machine, state = end.machine, end.machine.state
    match source.byte(7):
        case 0 if machine.use(source.number(1 << 37), now_ns):
            return machine.ask(other.machine.static, ephemeral, now_ns) == 0
        case 1 if state["state"] == "asked":
            return machine.answer(other.machine.static, ephemeral, now_ns) == 0
        case 2 if state["has_message"]:
            other.waiting.append((machine.write(), machine.epochs[0]))
        case 3 if end.waiting:
            frame, epoch = end.waiting[source.byte(len(end.waiting))]
            return hear(machine, other.machine, frame, epoch, now_ns)
        case 4 if machine.epochs[0] == other.machine.epochs[1]:  # as if it were acknowledged
            if state["is_turning"]:
                machine.turn(now_ns)
            elif not state["has_message"]:
                machine.update()
            packet_arrives(machine, other.machine, now_ns)
        case 5:
            frame = bytearray(source.take(98))
            if end.waiting and source.byte(2):
                frame = bytearray(end.waiting[0][0])
                frame[source.byte(len(frame))] ^= 1 << source.byte(8)
            if len(frame) in (50, 98) and frame[1] < 64 and frame[0] == (0x1E if len(frame) == 98 else 0x1F):
                return hear(machine, other.machine, bytes(frame), other.machine.epochs[0], now_ns)
        case 6:
            end.waiting = end.waiting[-source.byte(8) :]
    return True


def packet_arrives(sender: Machine, receiver: Machine, now_ns: int) -> None:
    """A packet of the sender's present epoch: the receiver must have its key."""
    if receiver.epochs[1] < sender.epochs[0]:
        assert receiver.secrets[1] == sender.secrets[0], "the receiver expects another key"
        receiver.follow(now_ns)


def hear(machine: Machine, sender: Machine, frame: bytes, epoch: int, now_ns: int) -> bool:
    if epoch == sender.epochs[0]:
        packet_arrives(sender, machine, now_ns)
    handle = machine.handle_init if frame[0] == 0x1E else machine.handle_answer
    return handle(frame[1], frame[2:], now_ns) == 0
