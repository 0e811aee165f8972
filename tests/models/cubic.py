"""CUBIC by the formulas of RFC 9438: windows in packets, times in seconds, and nothing rounded."""

from __future__ import annotations

C = 0.4
BETA = 0.7
ALPHA = 3 * (1 - BETA) / (1 + BETA)


class Cubic:
    """Congestion avoidance, from a congestion event on."""

    def __init__(self, window: float, w_max: float = 0.0) -> None:
        """Start with the window that the event found, and W_max of the one before it."""
        self.prior = window
        self.w_max = window * (1 + BETA) / 2 if window < w_max else window  # 4.7: fast convergence
        self.window = window * BETA
        self.start: float | None = None
        self.w_est = 0.0

    def k(self) -> float:
        return ((self.w_max - BETA * self.prior) / C) ** (1 / 3)

    def curve(self, t: float) -> float:
        return C * (t - self.k()) ** 3 + self.w_max

    def ack(self, now: float, packets: float, rtt: float) -> None:
        if self.start is None:
            self.start, self.w_est = now, self.window
        t = now - self.start
        self.w_est += (ALPHA if self.w_est < self.prior else 1.0) * packets / self.window  # 4.3
        if self.curve(t) < self.w_est:
            self.window = max(self.window, self.w_est)
            return
        target = min(max(self.curve(t + rtt), self.window), 1.5 * self.window)  # 4.2
        self.window += (target - self.window) / self.window * packets
