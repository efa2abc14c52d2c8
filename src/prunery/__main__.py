"""`python -m prunery` is `prunery`."""

from .cli import main

if __name__ == "__main__":
    main()
