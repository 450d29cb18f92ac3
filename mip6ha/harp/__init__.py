"""Pure home agent reliability: messages between home agents, hello and election, state synchronisation.

Covered: what draft-ietf-mip6-hareliability says between home agents, and the extensions that
carry whole contexts (``docs/harp.md``). Not covered: what a context holds and who may serve
(``failover``), and the ESP that protects every message.
"""
