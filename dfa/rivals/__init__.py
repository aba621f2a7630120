"""The methods that the paper compares with, each from its own paper, small enough to read beside it.

One interface, one set of recordings, one budget: `Method.fit`, `Method.render`.
"""

from .method import Method, Recording

__all__ = ["Method", "Recording"]
