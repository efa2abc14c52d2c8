"""How Prunery says no. The first room: it imports nothing, so that every other may refuse in the same way."""


class Refused(ValueError):
    """A request that cannot be carried out; its text is the one line that the user reads."""
