"""Draw what a stage learned over time, beside the table it is drawn from."""

import csv
from pathlib import Path

from matplotlib.figure import Figure


def draw_curve(folder: Path) -> Path:
    """Turn curve.csv (epoch, seconds, loss, score) into curve.png; returns the picture's path."""
    with (folder / "curve.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    minutes = [float(row["seconds"]) / 60 for row in rows]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="minutes", ylabel="training loss", title=folder.name)
    axes.plot(minutes, [float(row["loss"]) for row in rows], color="tab:gray", label="loss")
    right = axes.twinx()
    right.set_ylabel("score, averaged weights")
    right.plot(minutes, [float(row["score"]) for row in rows], color="tab:blue", label="score")
    figure.legend(loc="outside lower center", ncols=2)
    picture = folder / "curve.png"
    figure.savefig(picture, dpi=110)
    return picture
