"""Tests of the lab, and the lab as a test of everything else."""
