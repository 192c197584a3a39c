"""The frame of a self-contained HTML page: style inside, nothing loaded from anywhere."""

from html import escape

from simvlm_jax.pages.style import STYLE

# Nothing may be loaded from anywhere, whatever a caption tries.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, body: str, style: str = "") -> str:
    """Wraps the body of a page.

    Args:
      title: plain text; it is escaped.
      body: HTML, in which every text of strangers is escaped already.
      style: a style sheet of this page's own, after the common one.

    Returns:
      The whole document.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
