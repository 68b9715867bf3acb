"""Tables as HTML: escaped, with headings that a screen reader finds."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

Row = Sequence[str]


def html_table(rows: Sequence[Row], caption: str, heading: Row | None = None) -> Markup:
    """Write rows as a table; the first cell of each is its heading.

    Args:
        rows: Of as many cells each.
        caption: What the table is of.
        heading: Of the columns; the first one may be empty.

    Example:
        >>> print(html_table([("<b>", "1")], "Sizes", ("layer", "bytes")))
        <table>
        <caption>Sizes</caption>
        <thead><tr><th scope="col">layer</th><th scope="col">bytes</th></tr></thead>
        <tbody>
        <tr><th scope="row">&lt;b&gt;</th><td>1</td></tr>
        </tbody>
        </table>
    """
    head = Markup("") if heading is None else _line(Markup("<thead><tr>{}</tr></thead>\n"), map(_column, heading))
    body = Markup("").join(
        _line(Markup("<tr>{}</tr>\n"), [Markup('<th scope="row">{}</th>').format(first), *map(_cell, rest)])
        for first, *rest in rows
    )
    return Markup("<table>\n<caption>{}</caption>\n{}<tbody>\n{}</tbody>\n</table>").format(caption, head, body)


def _line(form: Markup, cells: object) -> Markup:
    return form.format(Markup("").join(cells))  # type: ignore[arg-type]


def _column(text: str) -> Markup:
    return Markup('<th scope="col">{}</th>').format(text) if text else Markup("<td></td>")


def _cell(text: str) -> Markup:
    return Markup("<td>{}</td>").format(text)
