"""Errors of torch that only report that another rank is gone or late.

gloo raises a plain RuntimeError, so its messages have to be searched.
"""

COLLECTIVE_WORDS = ("gloo", "NCCL")
TIMEOUT_WORDS = ("timed out", "wait timeout")


def is_peer_error(error: BaseException) -> bool:
    """Whether another rank is the reason of ``error``, or of an error that caused it."""
    return _peer_error(error) is not None


def is_peer_timeout(error: BaseException) -> bool:
    """Whether the reason is that another rank did not come in time."""
    text = str(_peer_error(error)).lower()
    return any(word in text for word in TIMEOUT_WORDS)


def _peer_error(error: BaseException) -> BaseException | None:
    from torch.distributed import DistError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DistError):
            return cause
        if isinstance(cause, RuntimeError) and any(w in str(cause) for w in COLLECTIVE_WORDS):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
