"""What was tried, as one HTML file that needs nothing else."""

from __future__ import annotations

import base64

from jinja2 import Environment, PackageLoader, select_autoescape

from flows.app.try_panes import SIGNS, Panes, figures_in_words, suspicion_lines


def report(name: str, spec: str, panes: Panes) -> str:
    """The page.

    Args:
        name: of the picture.
        spec: the specification, YAML.
        panes: what is shown.
    """
    loader = PackageLoader("flows", "templates")
    environment = Environment(loader=loader, autoescape=select_autoescape(), trim_blocks=True)
    pictures = []
    for pane, _ in panes.shown:
        pictures.append(
            {
                "role": pane.role,
                "alt": pane.alt,
                "uri": f"data:image/png;base64,{base64.b64encode(pane.png).decode()}",
                "said": SIGNS.get(pane.verdict, "") + pane.said,
                "verdict": pane.verdict,
                "figures": figures_in_words(pane),
                "answers": pane.answers,
            }
        )
    suspicions = {one.detector: suspicion_lines(one) for one in panes.suspicions.values()}
    return environment.get_template("try.html").render(
        name=name, spec=spec, pictures=pictures, suspicions=suspicions, seconds=panes.seconds
    )
