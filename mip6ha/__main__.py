"""``python -m mip6ha`` is the command ``mip6ha``."""

from .cli import main

if __name__ == "__main__":
    main()
