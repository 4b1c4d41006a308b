"""Put measured figures into a model card, between a block's two marks; the rest is a person's."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from covidnet_node.errors import BadConfig
from covidnet_node.training.evaluation.evaluation import Evaluation
from covidnet_node.training.evaluation.report import figure_lines


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the card that a command writes."""

    name: str
    command: str

    @property
    def start(self) -> str:
        """The line above it."""
        return f"<!-- {self.name}: written by {self.command} -->"

    @property
    def end(self) -> str:
        """The line below it."""
        return f"<!-- end of {self.name} -->"


FIGURES = Block("figures", "covidnet-node evaluate --card")


def check_card(path: Path, block: Block = FIGURES) -> tuple[str, str]:
    """What stands before and after the block; raises BadConfig if its marks are not there."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadConfig(str(path), "--card", f"cannot be read: {error.strerror}") from error
    before, start, rest = text.partition(block.start)
    _, end, after = rest.partition(block.end)
    if not start or not end:
        raise BadConfig(str(path), "--card", f"must hold the lines {block.start} and {block.end}")
    return before, after


def write_block(path: Path, block: Block, lines: Iterable[str]) -> None:
    """Replace what a card that check_card accepts has in the block."""
    before, after = check_card(path, block)
    text = "\n".join(lines)
    path.write_text(f"{before}{block.start}\n\n{text}\n\n{block.end}{after}", encoding="utf-8")


def write_card(evaluation: Evaluation, path: Path) -> None:
    """Replace the figures of a card that check_card accepts."""
    write_block(path, FIGURES, figure_lines(evaluation, "###"))
