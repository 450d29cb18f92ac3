"""Figures of the home agent: cost of a Binding Update, memory of a binding, payload, the whole daemon."""
