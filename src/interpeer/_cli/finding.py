"""What `interpeer doctor` says about one thing that it has looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from interpeer._cli.output import JsonObject

OK, WARNING, BROKEN = "ok", "warning", "broken"


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: str
    text: str
    advice: str = ""
    facts: JsonObject = field(default_factory=dict[str, Any])
