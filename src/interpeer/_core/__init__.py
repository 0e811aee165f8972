"""The protocol core: compiled modules, one mechanism or state machine each (docs/spec has a chapter for each)."""
