"""What goes wrong with a simulation itself, as opposed to the program in it."""


class SimulationError(RuntimeError):
    """Say that a program does what cannot be simulated, or that a simulation is set up wrongly.

    It is not an InterpeerError on purpose: a program that catches those must not swallow it."""


class Deadlock(SimulationError):
    """Say that nothing can happen any more: no task is ready, no timer is set, no packet is on its way."""


class OutOfTime(SimulationError):
    """Say that the program was not done within the simulated time that it was given."""


class Amplified(SimulationError):
    """Say that a node sent more to an address that has proved nothing than it had received from there.

    That is a defect of interpeer, and never of the program under test."""
