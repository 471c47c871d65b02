"""Reasons of failures and rejects, and their categories.

A reason begins with a category, words that do not depend on the crystal. Details follow a colon, "got" or "nearer":
"cell length must be > 0: _cell_length_a is 0". Summaries count reasons by category.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable


def category(reason: str) -> str:
    """Return the part of a reason that does not depend on the crystal."""
    return re.split(r": |,? got |, nearer ", reason, maxsplit=1)[0]


def category_counts(reasons: Iterable[str | None]) -> dict[str, int]:
    """Return how often each category occurs, the most frequent first; None is not counted."""
    return dict(Counter(category(reason) for reason in reasons if reason is not None).most_common())
