"""PCP and NAT-PMP: the reader agrees with its twin whatever comes, and what is written is what the gateway reads."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from interpeer._core import portmap
from interpeer._portmap.answers import Answer, Kind
from interpeer._portmap.epoch import Epoch
from interpeer._portmap.machine import Machine, State
from tests.fuzz.targets.mappings import feed
from tests.models import portmap as model

ports = st.integers(0, 65535)
seconds = st.integers(0, 2**32 - 1)
hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(lambda a: model.host_of(model.mapped(str(a))))
options = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([0, 3, 16, 20, 21]).flatmap(lambda n: st.binary(min_size=n, max_size=n)))
)


@given(st.binary(max_size=1200))
def test_noise_is_read_as_the_twin_reads_it(data):
    feed(data)
    feed(b"\x02\x81\0\0" + data)
    feed(b"\0\x81\0\0" + data)


@given(st.binary(min_size=12, max_size=12), hosts, hosts, ports, ports, seconds)
def test_request_for_a_mapping_is_what_the_gateway_reads(nonce, client, external, internal_port, external_port, lifetime_s):
    data = portmap.pcp_map(nonce, model.mapped(client), 17, internal_port, external_port, model.mapped(external), lifetime_s)
    assert model.read_pcp_request(data) == model.PcpRequest(
        1, lifetime_s, client, nonce, 17, internal_port, external_port, external
    )
    data = portmap.natpmp_map(internal_port, external_port, lifetime_s)
    assert model.read_natpmp_request(data) == model.NatpmpRequest(1, internal_port, external_port, lifetime_s)


@given(st.binary(min_size=12, max_size=12), hosts, ports, ports, seconds, seconds, st.integers(0, 255), options)
def test_answer_of_a_gateway_is_read_whole_and_cut_nowhere(nonce, external, internal, port, lifetime_s, epoch_s, result, added):
    request = model.PcpRequest(1, lifetime_s, "192.0.2.1", nonce, 17, internal)
    more = b"".join(model.pcp_option(code, data) for code, data in added)
    data = model.pcp_answer(request, external, port, result=result, epoch_s=epoch_s, options=more)
    found = portmap.parse_pcp(data)
    assert found == model.read_pcp(data)
    if not added:
        assert found is not None
        assert found[:9] == (1, result, lifetime_s, epoch_s, nonce, 17, internal, port, model.mapped(external))
    for n in range(60):
        assert portmap.parse_pcp(data[:n]) is None


@given(st.ip_addresses(v=4), ports, ports, seconds, seconds)
def test_natpmps_answers_are_read_whole_and_cut_nowhere(host, internal_port, port, lifetime_s, epoch_s):
    address = model.natpmp_address_answer(str(host), epoch_s=epoch_s)
    assert portmap.parse_natpmp(address) == (0, 0, epoch_s, ipaddress.IPv4Address(host).packed, 0, 0, 0)
    data = model.natpmp_map_answer(internal_port, port, lifetime_s, epoch_s=epoch_s)
    assert portmap.parse_natpmp(data) == (1, 0, epoch_s, bytes(4), internal_port, port, lifetime_s)
    assert all(portmap.parse_natpmp(data[:n]) is None for n in range(16))
    assert all(portmap.parse_natpmp(address[:n]) is None for n in range(12))


answers = st.builds(
    Answer,
    st.sampled_from(Kind),
    epoch_s=st.none() | st.integers(0, 100_000),
    lifetime_s=st.sampled_from([0, 9, 10, 600, 7200, 2**32 - 1]),
    host=st.sampled_from(["20.0.0.1", "20.0.0.2", "10.0.0.1"]),
    port=st.integers(1, 65535),
)
pauses = st.sampled_from([0.0, 0.1, 5.0, 600.0, 10_000.0])
steps = st.one_of(answers, st.sampled_from([True, False, None]), pauses, st.sampled_from(["doubt", "close"]))


@given(st.lists(steps, max_size=60), st.randoms(use_true_random=False))
def test_machine_always_waits_for_something_and_holds_what_its_state_says(script, random):
    machine, now_s = Machine(4433, 0.0, random_bytes=random.randbytes, epoch=Epoch(is_exact=True)), 0.0
    for step in script:
        grant = machine.grant
        match step:
            case Answer():
                machine.handle_answer(step, now_s)
            case bool() | None:
                if grant is not None:
                    machine.handle_verdict(grant, step, now_s)
            case float():
                now_s += step
                machine.handle_timeout(now_s)
            case "doubt":
                machine.handle_doubt(now_s)
            case _:
                machine.close(now_s)
        asked = [wish for _ in range(10) if (wish := machine.poll_request(now_s)) is not None]
        machine.poll_verification(now_s)
        assert len(asked) <= 1 and machine.poll_timeout() > now_s
        assert (machine.grant is not None) == (machine.state in (State.MAPPED, State.RENEWING))
        assert machine.is_verified is None or machine.grant is not None
    machine.close(now_s)
    for _ in range(10):
        if machine.state is State.CLOSED:
            break
        machine.poll_request(now_s)
        now_s = machine.poll_timeout()
        machine.handle_timeout(now_s)
    assert machine.state is State.CLOSED and machine.poll_request(now_s) is None and machine.poll_timeout() > 1e12
