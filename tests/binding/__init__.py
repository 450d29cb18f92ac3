"""Tests of mip6ha.binding."""
