"""A Mobile IPv6 home agent whose binding state and IPsec state fail over together."""

__all__ = ["__version__"]

__version__ = "0.1.0"
