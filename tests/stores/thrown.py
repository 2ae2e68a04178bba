"""What the fixture `alarms` throws."""


class Thrown(Exception):
    """Came out of nowhere, as from a signal handler."""
