"""IKEv2 (RFC 7296): how two ends agree on security associations, and on the keys of those."""
