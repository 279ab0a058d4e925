"""Errors whose message is the one line a user reads: what was wrong, where, what to do next."""


class PlainError(Exception):
    """Base of all errors of this project whose message is meant for people; a command ends with ``exit_code``."""

    exit_code = 1


class DataError(PlainError):
    """Base of every error that bad input to ``data_prep`` raises."""

    exit_code = 2


class MissingCorpusError(DataError):
    """The package that carries the built-in corpus is not installed."""


class TokenizerError(DataError):
    """A tokenizer cannot be trained, read, or used for what was asked."""


class ShardError(DataError):
    """A shard or its manifest is missing, damaged, or does not fit what was asked."""


class ShardUnavailable(ShardError):
    """A shard's server does not answer; it may later."""


class StreamStateError(DataError):
    """A saved stream position does not belong to the stream it was given to."""
