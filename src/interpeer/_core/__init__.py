"""The protocol core: compiled modules, one mechanism or state machine each (docs/spec has a chapter for each)."""

from interpeer import _sodium
from interpeer._core import crypto

crypto.install(_sodium.address)
