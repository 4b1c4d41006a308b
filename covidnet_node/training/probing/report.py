"""The probes' figures as a block of the model card."""

from collections.abc import Iterator

from covidnet_node.training.evaluation.card import Block
from covidnet_node.training.evaluation.intervals import DRAWS, Estimate
from covidnet_node.training.evaluation.tables import table
from covidnet_node.training.probing.covid import CovidFigures
from covidnet_node.training.probing.probe import Teaching
from covidnet_node.training.probing.probes import Probes
from covidnet_node.training.probing.sources import SourceFigures

PROBES = Block("probes", "covidnet-node train probes --card")


def lines(probes: Probes) -> Iterator[str]:
    """How it was measured, and both tables."""
    yield from _about(probes)
    yield from ("", "#### Can the hospital be told?", "")
    yield from _sources(probes)
    yield from ("", "#### Can COVID-19 be learned without the lungs?", "")
    yield from _covid(probes)


def _about(probes: Probes) -> Iterator[str]:
    yield f"- made {probes.at:%Y-%m-%d %H:%M} UTC by `{probes.command}`"
    yield f"- data manifest SHA-256 {probes.data_sha256}"
    yield (
        f"- small fresh networks of five strided convolutions, squares of {probes.side} px, seed "
        f"{probes.seed}, on {probes.device}; {probes.minutes:g} minutes shared alike, "
        f"{probes.minutes_each:.1f} each, at most {probes.most_epochs} epochs"
    )
    yield ""
    yield (
        f"In parentheses: 95 % intervals, bootstrap over patients, {DRAWS} draws, of one training "
        "run each. What a probe finds is there; what so small a probe does not find may be there "
        "still."
    )


def _sources(probes: Probes) -> Iterator[str]:
    yield (
        "Within one label, so that disease is no help. All films of the label are divided anew, "
        "whatever their split (radiography has only a train split, and no patients: each film is "
        "its own), by a hash of source and patient: a fifth is measured, of the rest an eighth "
        "picks the epoch. Sources share films' origins (radiography's normals and nih are NIH "
        "films; cohen and covidcxnet gather from the same publications), so what is told apart is "
        "collection and processing as much as the hospital. Style varied: gray scale, amplitude "
        "spectrum, texture and resolution changed as in the members' training, in learning and in "
        "measuring. AUC: mean over the sources, each against the rest; chance is 0.5."
    )
    if probes.members_probed:
        yield ""
        yield (
            "Members' features: multinomial logistic regression on the pooled features of this "
            "run's members. They were trained on most of these films; on films of val and test "
            "alone, each fifth is measured by a regression on the other four."
        )
    yield ""
    columns = ("label", "shown", "sources (recall)", "films learned / measured (patients)")
    figures = ("balanced accuracy", "chance", "AUC", "epochs (kept)")
    yield from table((*columns, *figures), map(_source_row, probes.sources))
    if not probes.members_probed:
        yield from ("", "No trained members were there: no linear probe of their features.")


def _source_row(found: SourceFigures) -> tuple[str, ...]:
    recalls = zip(found.sources, found.recalls, strict=True)
    return (
        found.label,
        found.probe,
        ", ".join(f"{source} ({_share(recall)})" for source, recall in recalls),
        f"{found.learned} / {found.measured} ({found.patients})",
        found.balanced_accuracy.words(),
        f"{found.chance:.3f}",
        found.auc.words(),
        _epochs(found.teaching),
    )


def _covid(probes: Probes) -> Iterator[str]:
    yield (
        "Probes that were *taught* on such films, on the train split (adults), epoch picked on "
        "val, measured on test. The silhouette is the grown outline alone. Black lungs are cut as "
        "for the shipped members: the crop with its outside kept, the silhouette black, so that "
        "whatever the silhouette tells they tell too; on the lungs' gray scale, as there, most of "
        "the outside is clipped to white, so it is shown once more on its own. The lung crop is "
        "the yardstick: the same small network and minutes with the lungs. Over several sources "
        "an AUC may reward recognizing the hospital."
    )
    yield ""
    columns = ("shown", "group", "films learned / measured (patients)", "with COVID-19")
    yield from table((*columns, "AUC of COVID-19", "epochs (kept)"), map(_row, probes.covid19))


def _row(found: CovidFigures) -> tuple[str, ...]:
    return (
        found.probe,
        found.group,
        f"{found.teaching.learned} / {found.films} ({found.patients})",
        str(found.covid19),
        found.auc.words(),
        _epochs(found.teaching),
    )


def _share(found: Estimate) -> str:
    return "–" if found.value is None else f"{found.value:.2f}"


def _epochs(teaching: Teaching | None) -> str:
    return "–" if teaching is None else f"{teaching.epochs} ({teaching.kept})"
