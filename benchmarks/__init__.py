"""Loads and figures: what the library does on this machine, beside the physical limit and its rivals."""
