"""Leave-one-group-out as a block of the model card."""

from collections.abc import Iterator

from covidnet_node.intended_use import CLASSES
from covidnet_node.training.evaluation.card import Block
from covidnet_node.training.evaluation.intervals import DRAWS
from covidnet_node.training.evaluation.leave_out_figures import LeaveOut, Run
from covidnet_node.training.evaluation.tables import table
from covidnet_node.training.trial import PRETRAIN_SHARE, told

LEAVE_OUT = Block("leave-out", "covidnet-node train leave-out --card")
REFERENCE = "0.917 (Bassi & Attux 2021), 0.90 (Teixeira 2021), external films"


def lines(figures: LeaveOut) -> Iterator[str]:
    """How it was measured, the goal, the figures and the runs."""
    yield from _about(figures)
    if figures.missing:
        yield ""
        yield "**Not all groups are in these figures**:"
        yield ""
        yield from (f"- {each.group}: {each.why}" for each in figures.missing)
    yield ""
    goal = figures.goal
    row = (goal.what, goal.measured.words(), REFERENCE, goal.aim, goal.reached)
    yield from table(("what", "measured", "reference", "goal", "reached"), [row])
    if figures.scopes:
        yield ""
        yield from _scopes(figures)
        yield ""
        yield from _confusion(figures)
        yield ""
        yield from _runs(figures)


def _about(figures: LeaveOut) -> Iterator[str]:
    setup = figures.setup
    yield f"- measured {figures.at:%Y-%m-%d %H:%M} UTC by `{figures.command}`"
    yield f"- data manifest SHA-256 {setup.data_sha256}"
    yield (
        f"- every film is scored by a model that never saw its group: **member {setup.member} "
        f"alone** ({setup.architecture}, lung crops of {setup.side} px, seed {setup.seed}), not "
        f"the ensemble; {figures.minutes:.0f} minutes of training in all, "
        f"{PRETRAIN_SHARE:.0%} of each run's supervised minutes for pneumonia against normal"
    )
    yield f"- {_longer(figures)}"
    yield (
        "- self-supervised pretraining: "
        + ("anew for each group, without its films" if setup.self_supervised else "**none**")
    )
    yield (
        "- the lungs were cut out by one segmenter for all groups; it has seen outlines, not "
        f"labels, of {' and '.join(figures.outlined) or 'no source'}"
    )
    if figures.never_out:
        yield f"- in every run and never scored: {' and '.join(figures.never_out)}"
    scored, films = (
        sum(run.scored for run in figures.runs),
        sum(run.result.films for run in figures.runs),
    )
    yield f"- {scored} of {films} films had plausible lungs and were scored, of every split"
    yield ""
    yield (
        f"In parentheses: 95 % intervals, bootstrap over patients, {DRAWS} draws, of one training "
        "run each. – means that these films cannot tell; where every film or none is right, an "
        "interval without width is not certainty. An AUC is of one class against the others "
        "that are there. Over several groups it compares what different models said; over several "
        "sources it may reward recognizing the kind of hospital; within a source it cannot. "
        "Reached: with the whole interval (yes), without it (value only); unknown if a group is "
        "missing."
    )


def _longer(figures: LeaveOut) -> str:
    """Whether these runs were shorter than the one that a release would come from."""
    if not figures.own:
        return "the runs folder holds no member of its own to compare the epochs with"
    runs = "; ".join(f"{run.group} {told(run.result.efforts)}" for run in figures.runs)
    return f"epochs: {runs or 'none'}; the runs folder's own member: {told(figures.own)}"


def _scopes(figures: LeaveOut) -> Iterator[str]:
    columns = ("films of", "films", "patients", *CLASSES, *(f"AUC {name}" for name in CLASSES))
    rows = (
        (
            each.name,
            each.films,
            each.patients,
            *each.per_class,
            *(area.words() for area in (each.auc.covid19, each.auc.pneumonia, each.auc.normal)),
            each.accuracy.words(),
            each.balanced_accuracy.words(),
        )
        for each in figures.scopes
    )
    yield from table((*columns, "accuracy", "balanced"), rows)


def _confusion(figures: LeaveOut) -> Iterator[str]:
    pooled = figures.scopes[0]
    yield f"Most probable class, {pooled.name}; rows are the truth:"
    yield ""
    rows = ((name, *row) for name, row in zip(CLASSES, pooled.confusion, strict=True))
    yield from table(("truth", *CLASSES), rows)


def _runs(figures: LeaveOut) -> Iterator[str]:
    yield (
        "What each run learned from, and what picked its epoch and temperature. Where the "
        "remaining validation films lack a class, every tenth training patient of it was lent to "
        "them."
    )
    yield ""
    order = " / ".join(CLASSES)
    columns = ("group", "left out", f"trained on ({order})", f"validation ({order})", "lent")
    rows = (_run(run) for run in figures.runs)
    yield from table((*columns, "epochs", "temperature", "scored"), rows)


def _run(run: Run) -> tuple[object, ...]:
    result = run.result
    return (
        run.group,
        ", ".join(result.setup.left_out),
        " / ".join(map(str, result.training)),
        " / ".join(map(str, result.validation)),
        result.lent,
        told(result.efforts),
        f"{result.temperature:.2f}",
        f"{run.scored} of {result.films}",
    )
