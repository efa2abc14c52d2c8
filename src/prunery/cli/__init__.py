"""The command line: parse -> spec -> one call. Whatever goes wrong is one line and an exit code."""

from .main import main

__all__ = ["main"]
