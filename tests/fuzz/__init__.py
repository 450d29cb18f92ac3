"""Mutated packets against whole cores; the same machines run open-ended from the command line."""
