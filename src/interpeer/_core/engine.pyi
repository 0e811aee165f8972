from collections.abc import Callable
from typing import final

@final
class Engine:
    on_kick: Callable[[], object] | None
