"""Slow and plain twins of the core, written from the specification and from the RFCs, to compare the core with."""
