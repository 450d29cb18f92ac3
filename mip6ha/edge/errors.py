"""What an operator must change before the edge can work."""

__all__ = ["Unusable"]


class Unusable(Exception):
    """A device, file, socket or privilege that is needed cannot be had; the text says which and why."""
