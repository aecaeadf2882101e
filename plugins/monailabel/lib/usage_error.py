"""The error of a request, with its HTTP status; it imports nothing, so readers and options can raise it."""


class UsageError(Exception):
    """A request that cannot be answered.

    Args:
        status: of HTTP, 4xx; 502 when a server behind this one failed, 503 when this one is busy, 507 when the disk is
            full.
        sentence: what was wrong, and what would be right.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = " ".join(sentence.split())
