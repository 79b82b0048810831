"""The version of this package: read by the build, said in every hello, shown by ``paceline --version``."""

__version__ = "0.1.0"
