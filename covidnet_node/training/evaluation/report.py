"""The figures as a page that a person can read: Markdown, with plots beside it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from covidnet_node.intended_use import CLASSES
from covidnet_node.training.dataset import CHILDREN, Split
from covidnet_node.training.evaluation.classes import ClassFigures, PerClass
from covidnet_node.training.evaluation.evaluation import Evaluation, Measured
from covidnet_node.training.evaluation.exams import ALL
from covidnet_node.training.evaluation.intervals import DRAWS
from covidnet_node.training.evaluation.plots import draw_plots
from covidnet_node.training.evaluation.tables import table

FILE = "evaluation.md"


def write_report(measured: Measured, folder: Path) -> Path:
    """Write evaluation.md and its plots into an existing folder."""
    plots = draw_plots(measured, folder)
    path = folder / FILE
    path.write_text("\n".join(_lines(measured.evaluation, plots)) + "\n", encoding="utf-8")
    return path


def figure_lines(evaluation: Evaluation, heading: str) -> Iterator[str]:
    """How it was measured and every table; `heading` is the Markdown mark of a section."""
    yield from _about(evaluation)
    for title, section in (
        ("Goals", _goals),
        ("Answers", _outcomes),
        ("Classes", _classes),
        ("Ensemble and members", _members),
        ("Calibration", _calibration),
        ("Lung outlines", _lungs),
        ("Heatmaps", _heatmaps),
        ("Without lungs", _shortcuts),
        ("Foreign films", _foreign),
        ("Laterals", _laterals),
        ("Films that come badly, and what is no chest film", _strain),
        ("Films that went wrong", _failures),
    ):
        yield from ("", f"{heading} {title}", "")
        yield from section(evaluation)


def _lines(evaluation: Evaluation, plots: Sequence[str]) -> Iterator[str]:
    about = evaluation.about
    yield f"# Evaluation of {about.weights_name} {about.weights_version}"
    yield ""
    yield f"**{about.notice}.** {about.weights_notice}"
    yield ""
    yield from figure_lines(evaluation, "##")
    if plots:
        yield from ("", "## Plots", "")
        yield from (f"![{name}]({name})" for name in plots)


def _about(evaluation: Evaluation) -> Iterator[str]:
    about = evaluation.about
    limit = f", a sample of at most {about.limit}" if about.limit else ""
    yield f"- {about.films} frontal films of split {about.split}{limit}; {about.laterals} laterals"
    yield f"- made {about.at:%Y-%m-%d %H:%M} UTC by `{about.command}`"
    yield f"- weights manifest SHA-256 {about.weights_digest}"
    yield f"- data manifest SHA-256 {about.manifest_sha256}"
    if about.trained_on_this_folder:
        seen = ": **films of its training split are among them**" if _trained(about.split) else ""
        yield f"- the weights were trained on this folder's training split{seen}"
    yield f"- {about.seconds_per_film:.2f} s a film (median, the node's page alone)"
    yield ""
    yield (
        f"In parentheses: 95 % intervals, bootstrap over patients, {DRAWS} draws. – means that "
        "these films cannot tell (one class only). A figure without an interval rests on fewer "
        "than three patients of a kind. Where every film or none is right, the bootstrap gives an "
        "interval without width: it is not certainty. Adults are all films "
        f"but those of {CHILDREN}, where there are any."
    )


def _goals(evaluation: Evaluation) -> Iterator[str]:
    yield (
        "Reached: with the whole interval (yes), without it (value only). Accuracy here is of the "
        "most probable class, a film without an answer being wrong; an AUC over several sources "
        "may reward recognizing the hospital."
    )
    yield ""
    rows = ((e.what, e.measured.words(), e.aim, e.reached) for e in evaluation.goals)
    yield from table(("what", "measured", "goal", "reached"), rows)


def _trained(split: str) -> bool:
    """Whether a split holds films that weights of the same folder have learned from."""
    return split in (Split.TRAIN.value, ALL)


def _outcomes(evaluation: Evaluation) -> Iterator[str]:
    columns = ("group", "films", "analyzed", "inconclusive", "not analyzed")
    rows = (
        (e.group, e.films, e.analyzed.words(), e.inconclusive.words(), e.not_analyzed.words())
        for e in evaluation.outcomes
    )
    yield from table(columns, rows)
    if evaluation.outcomes:
        yield from ("", "Why, over all films:", "")
        why = evaluation.outcomes[0].why
        rows_why = ((each.outcome, each.reason, each.detail, each.films) for each in why)
        yield from table(("outcome", "reason", "remark", "films"), rows_why)


def _classes(evaluation: Evaluation) -> Iterator[str]:
    threshold = evaluation.about.covid19_threshold
    yield (
        "Films without an answer have no AUC. Inconclusive films count with their probabilities. "
        f"COVID-19 is called from {threshold:.3f} on. Labels follow sources in public data: an "
        "AUC over sources may reward recognizing the hospital; within a source it cannot. "
        "Accuracy, recalls, sensitivity and specificity are of the called class, inconclusive "
        "films as they would be called; *sensitivity, concluded* is the share of all COVID-19 "
        "films on which the node really concludes COVID-19, and in *most probable*, too, a "
        "film without an answer is wrong."
    )
    yield ""
    areas = ("group", "films", "patients", *CLASSES, "no answer", "inconclusive")
    yield from table(
        (*areas, *(f"AUC {name}" for name in CLASSES), "AUC macro"), _areas(evaluation)
    )
    yield ""
    called = ("group", "accuracy", "unanswered wrong", "most probable", "balanced", "F1 macro")
    rates = ("sensitivity", "sensitivity, concluded", "specificity")
    yield from table((*called, *rates), _called(evaluation))
    yield ""
    yield from table(
        ("group", *(f"F1 {name}" for name in CLASSES), *(f"recall {name}" for name in CLASSES)),
        ((e.group, *_three(e.f1), *_three(e.recall)) for e in evaluation.classes),
    )
    for each in _main(evaluation):
        yield from ("", f"Confusion, {each.group}:", "")
        yield from _confusion(each)


def _main(evaluation: Evaluation) -> tuple[ClassFigures, ...]:
    """All adults, with and without text-mined labels."""
    return tuple(each for each in evaluation.classes if each.group.startswith("all "))


def _areas(evaluation: Evaluation) -> Iterator[tuple[object, ...]]:
    for e in evaluation.classes:
        counts = (e.films, e.patients, *e.per_class, e.unanswered, e.inconclusive)
        yield (e.group, *counts, *_three(e.auc), e.auc_macro.words())


def _called(evaluation: Evaluation) -> Iterator[tuple[object, ...]]:
    for e in evaluation.classes:
        yield (
            e.group,
            e.accuracy.words(),
            e.accuracy_unanswered_wrong.words(),
            e.accuracy_most_probable.words(),
            e.balanced_accuracy.words(),
            e.f1_macro.words(),
            e.sensitivity.words(),
            e.sensitivity_concluded.words(),
            e.specificity.words(),
        )


def _confusion(each: ClassFigures) -> Iterator[str]:
    rows = ((name, *row) for name, row in zip(CLASSES, each.confusion, strict=True))
    yield from table(("label \\ called", *CLASSES, "no answer"), rows)


def _members(evaluation: Evaluation) -> Iterator[str]:
    columns = ("member", "AUC covid19", "AUC macro", "ensemble's gain, covid19", "gain, macro")
    rows = (
        (
            e.member,
            e.auc_covid19.words(),
            e.auc_macro.words(),
            e.gain_covid19.words(),
            e.gain_macro.words(),
        )
        for e in evaluation.members
    )
    yield from table(columns, rows)


def _calibration(evaluation: Evaluation) -> Iterator[str]:
    yield (
        "Over 15 bins, of the most probable class. Few films make the error look larger than it "
        "is, so small groups err upwards; every draw of the bootstrap does so even more, and the "
        "intervals are moved back by that."
    )
    yield ""
    columns = ("group", "films", "error (15 bins)", "error of covid19", "Brier")
    rows = (
        (e.group, e.films, e.error.words(), e.error_covid19.words(), e.brier.words())
        for e in evaluation.calibration
    )
    yield from table(columns, rows)


def _lungs(evaluation: Evaluation) -> Iterator[str]:
    yield (
        "`channel` is the network's outline of the reference's own convention; `shipped` what the "
        "node used (always the lung field); `annotators` how far a second annotator agrees with "
        "the first. Boundary: distance in percent of the diagonal."
    )
    yield ""
    columns = ("convention", "what", "group", "films", "Dice", "worst", "IoU")
    rows = (
        (
            e.convention,
            e.what,
            e.group,
            e.films,
            e.dice.words(),
            f"{e.worst_dice:.3f}",
            e.iou.words(),
            e.boundary.words(),
            e.boundary_95.words(),
            e.not_found,
        )
        for e in evaluation.lungs
    )
    yield from table((*columns, "boundary, mean", "boundary, 95 %", "no plausible outline"), rows)


def _heatmaps(evaluation: Evaluation) -> Iterator[str]:
    yield (
        "Raw maps, nothing masked. The members see the crop alone, so a map without aim has as "
        "much energy in the lungs as they have of the crop's area. Insertion: larger is better; "
        "deletion: smaller is better; a random map beside each."
    )
    yield ""
    columns = ("group", "films", "in own lungs", "of film", "of crop", "with reference")
    rows = (
        (
            e.group,
            e.films,
            e.energy_own.words(),
            e.area_own.words(),
            e.area_own_of_crop.words(),
            e.with_reference,
            e.energy_reference.words(),
            e.area_reference.words(),
            e.area_reference_of_crop.words(),
            e.insertion.words(),
            e.insertion_random.words(),
            e.deletion.words(),
            e.deletion_random.words(),
        )
        for e in evaluation.heatmaps
    )
    more = ("in reference lungs", "of film", "of crop", "insertion", "random", "deletion", "random")
    yield from table((*columns, *more), rows)


def _shortcuts(evaluation: Evaluation) -> Iterator[str]:
    yield (
        "Outline, crop and gray scale of the intact film; then the lungs are blacked out (or gray) "
        "and the rest of the crop is kept, or only the outline is shown. 0.5 is ignorance; a value "
        "far from it on either side means that the answer can be had without the lungs."
    )
    yield ""
    rows = ((e.group, e.test, e.films, *_three(e.auc)) for e in evaluation.shortcuts)
    yield from table(("group", "test", "films", *(f"AUC {name}" for name in CLASSES)), rows)


def _foreign(evaluation: Evaluation) -> Iterator[str]:
    yield (
        "Films of diseases that the classes do not name, and children: never counted as normal. "
        "AUC is of the out-of-distribution score against the films named beside it."
    )
    yield ""
    columns = ("films of", "films", "without conclusion", "flagged as out of distribution")
    rows = (
        (
            e.group,
            e.films,
            e.flagged.words(),
            e.flagged_distance.words(),
            f"{e.against} ({e.against_films})",
            e.against_flagged.words(),
            e.auc.words(),
            ", ".join(f"{name} {count}" for name, count in e.called),
        )
        for e in evaluation.foreign
    )
    more = ("against", "of these without conclusion", "AUC", "else called")
    yield from table((*columns, *more), rows)


def _laterals(evaluation: Evaluation) -> Iterator[str]:
    found = evaluation.laterals
    yield f"{found.films} laterals, the node not told that they are."
    yield f"Answered without probabilities: {found.without_probabilities.words()}."
    if found.answered:
        yield from ("", "Got probabilities all the same:", "")
        yield from (f"- {words}" for words in found.answered)


def _strain(evaluation: Evaluation) -> Iterator[str]:
    yield (
        "The outlined films, changed; what moves the lungs moves the reference. Dice is of the "
        "network's channel of the reference's convention; refused means that the node finds no "
        "plausible lungs."
    )
    yield ""
    rows = (
        (e.change, e.convention, e.films, e.dice.words(), e.refused.words())
        for e in evaluation.strain.strained
    )
    yield from table(("change", "convention", "films", "Dice", "refused"), rows)
    yield ""
    yield "The same films, so that they are none any more, and drawings: all should be refused."
    yield ""
    others = ((e.what, e.images, e.refused.words()) for e in evaluation.strain.impostors)
    yield from table(("image", "images", "refused"), others)


def _failures(evaluation: Evaluation) -> Iterator[str]:
    rows = ((e.key, e.view, e.label, e.words) for e in evaluation.failures)
    yield from table(("film", "view", "label", "what went wrong"), rows)


def _three(each: PerClass) -> tuple[str, str, str]:
    return each.covid19.words(), each.pneumonia.words(), each.normal.words()


def summary(evaluation: Evaluation) -> str:
    """A few lines for the terminal."""
    about = evaluation.about
    lines = [f"{about.weights_name} {about.weights_version}: {about.films} films. {about.notice}."]
    lines += [
        f"{each.group}: AUC macro {each.auc_macro.words()}, COVID-19 {each.auc.covid19.words()}, "
        f"accuracy {each.accuracy.words()}, {each.unanswered} of {each.films} not analyzed"
        for each in _main(evaluation)
    ]
    lines += [
        f"outline {each.convention}: Dice {each.dice.words()}, {each.films} films"
        for each in evaluation.lungs
        if each.group == "all films" and each.what == "channel"
    ]
    return "\n".join(lines)
