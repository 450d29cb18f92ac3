"""Whole redundant sets and their mobile nodes in one process, on a simulated clock and network.

``plan`` says what a seed means, ``world`` runs it, ``checker`` holds the rules of atomic failover against
every step. A seed always gives the same run: ``python -m tests.simulation --seed N --minutes M``.
"""
