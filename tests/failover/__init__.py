"""Members of a redundant set: each part on its own, and whole sets on a simulated clock and network."""
