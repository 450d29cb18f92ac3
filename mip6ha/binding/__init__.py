"""Bindings: their messages, the cache, home registrations, discovery of home agents and prefixes."""
