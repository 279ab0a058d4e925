"""Counts with their nouns, for what people read."""


def counted(count: int, noun: str) -> str:
    """The count and the noun in its number.

    >>> counted(1, "global step"), counted(1200, "sample")
    ('1 global step', '1200 samples')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
