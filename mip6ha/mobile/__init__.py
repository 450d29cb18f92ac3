"""The mobile node's side of the same protocols: movement, home registration, reverse tunnel, load."""
