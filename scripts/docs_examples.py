"""An extension of griffe: shows the `Example:` of a docstring as code; griffe itself knows the plural only."""

import re
from typing import Any

import griffe


class SingularExamples(griffe.Extension):
    """Turns `Example:` into the heading griffe knows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of every object as it is read."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
