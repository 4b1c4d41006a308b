"""Put the measured figures into a model card, between its two marks; the rest is a person's."""

from pathlib import Path

from covidnet_node.errors import BadConfig
from covidnet_node.training.evaluation.evaluation import Evaluation
from covidnet_node.training.evaluation.report import figure_lines

START = "<!-- figures: written by covidnet-node evaluate --card -->"
END = "<!-- end of figures -->"


def check_card(path: Path) -> tuple[str, str]:
    """What stands before and after the figures; raises BadConfig if the marks are not there."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadConfig(str(path), "--card", f"cannot be read: {error.strerror}") from error
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise BadConfig(str(path), "--card", f"must hold the lines {START} and {END}")
    return before, after


def write_card(evaluation: Evaluation, path: Path) -> None:
    """Replace the figures of a card that check_card accepts."""
    before, after = check_card(path)
    figures = "\n".join(figure_lines(evaluation, "###"))
    path.write_text(f"{before}{START}\n\n{figures}\n\n{END}{after}", encoding="utf-8")
