"""A figure that a notebook shows, though it is not of pyplot, whose figures are global.

Reports are made in threads too, and pyplot is for one thread. Where nobody imported pyplot, a
notebook writes of a figure only how large it is.
"""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Picture(Figure):
    """A figure of matplotlib that is shown inline."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
