"""``python -m qunlearn`` is the command line."""

from qunlearn.cli import main

if __name__ == "__main__":
    main()
