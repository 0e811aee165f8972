"""One mapping of one gateway: asked for, held, renewed, made anew when lost or lying, given back (docs/spec, chapter 25).

The machine has no socket and no clock: wishes come out by `poll_request`, answers go in by `handle_answer`, and `now_s` is
given with each. After anything is handled, the caller polls until nothing is left, and sets its timer by `poll_timeout`.
Which protocol carries a wish makes no difference here, but for how long an answer is waited for.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

from interpeer._portmap.answers import Answer, Kind, Wish, is_public
from interpeer._portmap.epoch import Epoch

LIFETIME_S = 7200
"""What is asked for; of a grant for longer, no more is believed."""
MIN_LIFETIME_S = 10
"""A grant for less is none: renewals would follow each other as fast as answers do."""
RENEWAL_GAP_S = 4.0
"""At least so much lies between renewals (RFC 6887, section 11.2.1)."""
RETRIES_S = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Between requests without an answer. RFC 6887 begins with 3 s; gateways are one hop away, and each has few clients."""
RELEASE_RETRIES_S = (0.25, 0.25, 0.5)
"""The same for a deletion at the end: a program that ends has one second."""
FIRST_PAUSE_S, MAX_PAUSE_S = 3.0, 1024.0
"""After requests without an answer, or a refusal; doubles (RFC 6887, section 8.1.1: IRT and MRT)."""
MAX_ERROR_S = 1800
"""A refusal for longer is tried again after this (RFC 6887, section 7.4 has 30 minutes for long errors)."""
REBOOT_GAP_S = 4.0
"""Announcements make us ask anew at most so often, since anybody on the wire can forge them."""
GONE_GAP_S = 4.0
"""So do answers that a mapping is gone: so long after the last request ..."""
VERIFY_GAP_S = 4.0
"""... and what a gateway says unasked makes somebody outside come in at most so often."""
UNASKED_S = 60.0
"""When nobody could be asked whether the mapping works, somebody is asked after so long."""
RECHECK_S = 900.0
"""A mapping that works is checked again after so long: some gateways renew what they have stopped to forward."""
FIRST_LIE_PAUSE_S, MAX_LIE_PAUSE_S = 60.0, 3600.0
"""Between deletions of a mapping that does not work, the second time and later; doubles."""
NONCE_BYTES = 12


class State(enum.IntEnum):
    """Where a mapping stands."""

    REQUESTING = 0
    MAPPED = 1
    RENEWING = 2
    DELETING = 3
    WAITING = 4
    RELEASING = 5
    CLOSED = 6


class Input(enum.IntEnum):
    """What moves it."""

    GRANTED = 0
    REFUSED = 1
    GONE = 2
    DUE = 3
    EXPIRED = 4
    REBOOTED = 5
    LIED = 6
    CLOSE = 7


def _table() -> tuple[tuple[State | None, ...], ...]:
    requesting, mapped, renewing, deleting, waiting, releasing, closed = State
    return (  # [state][input] -> next state; None: nothing happens (PM-1)
        # GRANTED REFUSED     GONE        DUE         EXPIRED     REBOOTED    LIED      CLOSE
        (mapped,  waiting,    None,       waiting,    None,       requesting, None,     releasing),  # REQUESTING
        (mapped,  None,       requesting, renewing,   requesting, requesting, deleting, releasing),  # MAPPED
        (mapped,  None,       requesting, None,       requesting, requesting, deleting, releasing),  # RENEWING
        (None,    requesting, requesting, requesting, None,       requesting, None,     releasing),  # DELETING
        (None,    None,       None,       requesting, None,       requesting, None,     closed),     # WAITING
        (None,    closed,     closed,     closed,     None,       closed,     None,     None),       # RELEASING
        (None,    None,       None,       None,       None,       None,       None,     None),       # CLOSED
    )  # fmt: skip


TABLE = _table()


@final
@dataclass(frozen=True, slots=True)
class Grant:
    """What the gateway has given."""

    host: str
    port: int
    lifetime_s: int
    number: int
    """Counts the mappings that were made: one made anew is another, though it may look the same."""


@final
class Machine:
    """`handle_*` tells what has happened, `poll_*` what shall be done; the rest are plain readers."""

    def __init__(
        self,
        internal_port: int,
        now_s: float,
        *,
        random_bytes: Callable[[int], bytes],
        epoch: Epoch | None = None,
        retries_s: tuple[float, ...] = RETRIES_S,
        external_port: int = 0,
        failures: int = 0,
    ) -> None:
        self.state = State.REQUESTING
        self.grant: Grant | None = None
        self.is_verified: bool | None = None
        self.reason = ""
        self.reboots = 0
        self.lies = 0
        self._internal_port = internal_port
        self._random_bytes = random_bytes
        self._epoch = epoch
        self._retries_s = retries_s
        self._suggested_host: str | None = None
        self._suggested_port = external_port or internal_port
        self._nonce = random_bytes(NONCE_BYTES)
        self._made = 0
        self.failures = failures
        """How often nothing was granted, since something was."""
        self._pause_s = FIRST_PAUSE_S
        self._tries = 0
        self._send_s = now_s
        self._due_s = math.inf
        self._granted_s = 0.0
        self._expiry_s = math.inf
        self._verify_s = math.inf
        self._next_verify_s = 0.0
        self._trying: int | None = None
        self._next_gone_s = 0.0
        self._lie_due_s = 0.0
        self._reboot_s = math.inf
        self._next_reboot_s = 0.0

    # --- what has happened ---

    def handle_answer(self, answer: Answer, now_s: float) -> None:
        """Take what the gateway says."""
        if self.state is State.CLOSED:
            return
        if answer.epoch_s is not None and self._epoch and not self._epoch.has_kept(answer.epoch_s, now_s):
            self.reboots += 1
            if answer.kind is Kind.GRANTED:
                self._made += 1  # this is for a new mapping, though it may look like the old one
            else:
                self._reboot_s = max(now_s, self._next_reboot_s)
        if answer.kind is Kind.GRANTED:
            self._handle_grant(answer, now_s)
        elif answer.kind is Kind.REFUSED:
            self._handle_refusal(answer.reason, answer.lifetime_s, now_s)
        elif answer.kind is Kind.GONE:
            self._move(Input.GONE, now_s)
        elif self.grant is not None and answer.host not in (None, self.grant.host):
            self._made += 1
            self._set_grant(replace(self.grant, host=answer.host, number=self._made), max(now_s, self._next_verify_s))
        self.handle_timeout(now_s)

    def handle_verdict(self, grant: Grant, verdict: bool | None, now_s: float) -> None:
        """Take what somebody outside has found: whether the mapping works, or None if nobody could be asked."""
        if self.grant is None or grant.number != self.grant.number:
            return
        self._trying = None
        self.is_verified = self.is_verified if verdict is None else verdict
        if verdict is None:
            self._verify_s = now_s + UNASKED_S
        elif verdict:
            self.lies = 0
            self.reason = ""
            self._verify_s = now_s + RECHECK_S
        elif now_s < self._lie_due_s:
            self.reason = "the gateway grants it, but nothing comes through"
            self._verify_s = self._lie_due_s
        else:
            self._lie_due_s = now_s + min(FIRST_LIE_PAUSE_S * 2**self.lies, MAX_LIE_PAUSE_S)
            self.lies += 1
            self.reason = "the gateway granted it, but nothing came through: it was made anew"
            self._move(Input.LIED, now_s)

    def handle_doubt(self, now_s: float) -> None:
        """Have the mapping checked from outside as soon as may be."""
        if self._verify_s < math.inf:
            self._verify_s = min(self._verify_s, max(now_s, self._next_verify_s))

    def handle_timeout(self, now_s: float) -> None:
        """Do what is due."""
        if now_s >= self._reboot_s:
            self._reboot_s, self._next_reboot_s = math.inf, now_s + REBOOT_GAP_S
            self._move(Input.REBOOTED, now_s)
        if now_s >= self._expiry_s:
            self._move(Input.EXPIRED, now_s)
        if now_s >= self._due_s:
            if self.state is State.REQUESTING:
                self.reason = "no answer"
                self._pause(0)
            self._move(Input.DUE, now_s)

    def close(self, now_s: float) -> None:
        """Give the mapping back."""
        self._move(Input.CLOSE, now_s)

    # --- what shall be done ---

    def poll_request(self, now_s: float) -> Wish | None:
        """Return what is to be asked for now; each is returned once when due."""
        if now_s < self._send_s:
            return None
        if self.state is State.RENEWING:
            self._send_s = self._renewal_s(now_s)
        else:
            retries = RELEASE_RETRIES_S if self.state is State.RELEASING else self._retries_s
            wait_s = retries[self._tries] * self._jitter()
            if self.state is State.REQUESTING:
                self._next_gone_s = now_s + GONE_GAP_S
            self._send_s, self._due_s = (
                (now_s + wait_s, math.inf) if self._tries + 1 < len(retries) else (math.inf, now_s + wait_s)
            )
        self._tries += 1
        lifetime_s = 0 if self.state in (State.DELETING, State.RELEASING) else LIFETIME_S
        return Wish(self._internal_port, self._suggested_port, self._suggested_host, lifetime_s, self._nonce)

    def poll_verification(self, now_s: float) -> Grant | None:
        """Return what somebody outside is to try now, for `handle_verdict`; each is returned once when due."""
        if now_s < self._verify_s:
            return None
        self._verify_s, self._next_verify_s = math.inf, now_s + VERIFY_GAP_S
        self._trying = None if self.grant is None else self.grant.number
        return self.grant

    def poll_timeout(self) -> float:
        """Return when something is due."""
        return min(self._send_s, self._due_s, self._expiry_s, self._verify_s, self._reboot_s)

    # --- within ---

    def _move(self, event: Input, now_s: float) -> bool:
        """Go where the table says; return whether that is anywhere."""
        after = TABLE[self.state][event]
        if after is None:
            return False
        before, self.state = self.state, after
        if after is State.REQUESTING:
            if before is State.DELETING:
                self._nonce = self._random_bytes(NONCE_BYTES)
            self._forget()
            self._send_s = now_s
            if event is Input.GONE and before is not State.DELETING:
                self._send_s = max(now_s, self._next_gone_s)
        elif after is State.RENEWING:
            self._send_s, self._due_s, self._tries = now_s, math.inf, 1
        elif after in (State.DELETING, State.RELEASING):
            self._forget()
            self._send_s = now_s
        elif after is State.WAITING:
            self._forget()
            self._due_s = now_s + self._pause_s
        elif after is State.CLOSED:
            self._forget()
            self._reboot_s = math.inf
        return True

    def _forget(self) -> None:
        """Have no mapping, and no timer."""
        self.grant = None
        self.is_verified = None
        self._tries = 0
        self._trying = None
        self._send_s = self._due_s = self._expiry_s = self._verify_s = math.inf

    def _handle_grant(self, answer: Answer, now_s: float) -> None:
        if answer.lifetime_s < MIN_LIFETIME_S:
            self._handle_refusal(f"it grants {answer.lifetime_s} s, too short to be of use", 0, now_s)
            return
        before, is_new = self.grant, self.state is State.REQUESTING
        is_asked = is_new and self._tries > 0
        if not self._move(Input.GRANTED, now_s):
            return
        assert answer.host is not None
        self.failures = 0
        self._made += is_new or before is None or (before.host, before.port) != (answer.host, answer.port)
        self._suggested_host, self._suggested_port = answer.host, answer.port
        lifetime_s = min(answer.lifetime_s, LIFETIME_S)
        self._granted_s, self._expiry_s = now_s, now_s + lifetime_s
        self._tries, self._send_s = 0, math.inf
        self._due_s = self._renewal_s(now_s)
        if not self.lies:
            self.reason = answer.reason
        grant = Grant(answer.host, answer.port, lifetime_s, self._made)
        self._set_grant(grant, now_s if is_asked else max(now_s, self._next_verify_s))

    def _set_grant(self, grant: Grant, verify_s: float) -> None:
        """Hold a grant, and have it tried from outside at `verify_s`, unless somebody is trying this very mapping now."""
        is_same = self.grant is not None and self.grant.number == grant.number
        self.grant = grant
        if not is_same:
            self.is_verified = self._trying = None
        if self._trying is None:
            self._verify_s = verify_s if is_public(grant.host) else math.inf

    def _handle_refusal(self, reason: str, lifetime_s: int, now_s: float) -> None:
        if self.state is State.REQUESTING:
            self.reason = reason
            self._pause(lifetime_s)
        self._move(Input.REFUSED, now_s)

    def _pause(self, error_s: int) -> None:
        """Set how long WAITING lasts."""
        pause_s = min(FIRST_PAUSE_S * 2**self.failures, MAX_PAUSE_S) * self._jitter()
        self.failures = min(self.failures + 1, 10)
        self._pause_s = max(pause_s, min(error_s, MAX_ERROR_S))

    def _renewal_s(self, now_s: float) -> float:
        """Return when the next renewal is due: at 1/2 to 5/8 of the lifetime, 3/4 to 13/16, and so on; inf: not any more."""
        lifetime_s = self._expiry_s - self._granted_s
        part = 2.0 ** -(self._tries + 1)
        when_s = self._granted_s + lifetime_s * (1 - part + self._chance() * part / 4)
        when_s = max(when_s, now_s + RENEWAL_GAP_S)
        return when_s if when_s < self._expiry_s else math.inf

    def _chance(self) -> float:
        return int.from_bytes(self._random_bytes(4), "big") / 2**32

    def _jitter(self) -> float:
        return 0.9 + 0.2 * self._chance()
