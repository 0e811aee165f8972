"""interpeer.testing's event loop: simulated time, one seed, and errors that say what cannot be simulated."""

import asyncio
import gc
import random
import socket
import threading

import pytest

import interpeer
from interpeer.testing import Deadlock, OutOfTime, SimNet, SimulationError, run


def test_sleeping_takes_exactly_its_time_and_no_real_one():
    async def main():
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.sleep(86_400 * 365)
        return loop.time() - start

    assert run(main(), until_s=1e9) == 86_400 * 365


def test_timers_fire_in_order_and_at_their_time():
    async def main():
        seen = []

        async def after(delay_s):
            await asyncio.sleep(delay_s)
            seen.append(asyncio.get_running_loop().clock.now_s)

        await asyncio.gather(*(after(delay_s) for delay_s in (0.3, 0.1, 1e-9, 0.2)))
        return seen

    assert run(main()) == [1e-9, 0.1, 0.2, 0.3]


def test_timeouts_are_simulated():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().clock.now_s

    assert run(main()) == 30


def test_a_deadlock_names_who_waits_and_where():
    async def stuck():
        await asyncio.Event().wait()

    async def main():
        await asyncio.create_task(stuck(), name="the stuck one")

    with pytest.raises(Deadlock, match=r"the stuck one in .*stuck, .*test_testing_loop\.py:\d+: await asyncio\.Event"):
        run(main())


def test_a_program_that_is_not_done_in_time_fails():
    async def main():
        await asyncio.sleep(61)

    with pytest.raises(OutOfTime, match="after 60 simulated seconds.*await asyncio.sleep"):
        run(main(), until_s=60)


def test_a_program_that_polls_is_told_that_time_stands():
    async def main():
        while True:
            await asyncio.sleep(0)

    with pytest.raises(SimulationError, match="sleep\\(0\\)"):
        run(main())


def test_what_fails_carries_the_seed():
    async def main():
        await asyncio.sleep(2.5)
        raise KeyError("something")

    with pytest.raises(KeyError) as caught:
        run(main(), seed=0xBEEF)
    assert caught.value.__notes__ == ["in a simulation with seed=0xbeef, at 2.500000000 s"]


def test_without_a_seed_there_is_another_one_each_time():
    async def main():
        return asyncio.get_running_loop().seed

    assert run(main()) != run(main())


def test_the_seed_decides_pythons_random_and_leaves_it_as_it_was():
    async def main():
        return random.random(), interpeer.Identity.generate().id

    random.seed(1)
    expected = random.random()
    random.seed(1)
    assert run(main(), seed=7) == run(main(), seed=7) != run(main(), seed=8)
    assert random.random() == expected


def test_tasks_in_a_set_have_an_order_that_does_not_depend_on_addresses():
    async def main(padding):
        async def nothing():
            pass

        keep = [bytearray(n * 17) for n in range(padding)]
        tasks = {asyncio.create_task(nothing(), name=str(i)) for i in range(50)}
        order = [task.get_name() for task in tasks]
        await asyncio.gather(*tasks)
        return order, len(keep)

    assert run(main(0))[0] == run(main(1000))[0]


def test_garbage_is_not_collected_in_between_and_collecting_goes_on_afterwards():
    async def main():
        return gc.isenabled()

    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    try:
        assert run(main()) is False
        assert gc.isenabled()
        assert gc.get_freeze_count() == 0
    finally:
        if frozen:
            gc.freeze()


def test_to_thread_calls_the_function_on_the_spot():
    async def main():
        def fail():
            raise OSError("no")

        with pytest.raises(OSError, match="no"):
            await asyncio.to_thread(fail)
        return await asyncio.to_thread(threading.get_ident)

    assert run(main()) == threading.get_ident()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda loop: loop.create_connection(asyncio.Protocol, "127.0.0.1", 1), "SimNet"),
        (lambda loop: loop.create_datagram_endpoint(asyncio.DatagramProtocol), "SimNet"),
        (lambda loop: asyncio.open_connection("127.0.0.1", 1), "SimNet"),
        (lambda loop: asyncio.start_server(print, port=0), "SimNet"),
        (lambda loop: loop.getaddrinfo("localhost", 1), "names"),
        (lambda loop: asyncio.create_subprocess_exec("true"), "one process"),
        (lambda loop: loop.add_signal_handler(1, print), "cancel"),
        (lambda loop: loop.run_in_executor(object(), print), "to_thread"),
    ],
)
def test_what_cannot_be_simulated_says_so(call, word):
    async def main():
        await call(asyncio.get_running_loop())

    with pytest.raises(SimulationError, match=word):
        run(main())


def test_real_sockets_are_refused():
    async def main():
        with socket.socket() as sock:
            sock.setblocking(False)
            asyncio.get_running_loop().add_reader(sock, print)

    with pytest.raises(SimulationError, match=r"loop\.add_reader.*SimNet"):
        run(main())


def test_another_thread_that_calls_in_is_refused():
    async def main():
        loop, caught = asyncio.get_running_loop(), []

        def call():
            try:
                loop.call_soon_threadsafe(print)
            except SimulationError as error:
                caught.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        return str(caught[0])

    assert "another thread" in run(main())


def test_a_node_on_no_host_is_told_how_to_get_one():
    async def main():
        async with interpeer.Node():
            pass

    with pytest.raises(SimulationError, match=r"host\.node.*host\.start"):
        run(main())


def test_what_is_left_running_is_cancelled_in_order_and_generators_are_closed():
    seen = []

    async def left(name):
        try:
            await asyncio.sleep(1000)
        finally:
            seen.append(name)

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            seen.append("generator")

    async def main():
        keep = [asyncio.create_task(left(name)) for name in "abc"]
        generator = numbers()
        await anext(generator)
        await asyncio.sleep(1)
        return keep, generator

    run(main())
    assert seen == ["a", "b", "c", "generator"]


def test_a_net_outside_a_run_needs_a_clock():
    with pytest.raises(SimulationError, match="SimClock"):
        SimNet()
