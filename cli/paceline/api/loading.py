"""Where `paceline.load` comes from: the server's package knows the run directory."""

from paceline.server.finished import load

__all__ = ["load"]
