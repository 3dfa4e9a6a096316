"""What this package raises on purpose. The command line prints it as one message; anything else is a bug."""


class DataError(Exception):
    """Data that cannot be read, joined or trusted; names the file, what is wrong there and the remedy."""
