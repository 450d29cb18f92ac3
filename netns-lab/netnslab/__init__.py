"""Scenarios of the home agent on real network namespaces: topology, processes, probes, captures, report."""
