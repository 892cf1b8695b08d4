"""``python -m secateur.cli``: the same command."""

from ._main import main

if __name__ == "__main__":
    main()
