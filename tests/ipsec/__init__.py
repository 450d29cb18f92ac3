"""Tests of mip6ha.ipsec."""
