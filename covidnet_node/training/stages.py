"""The stages in their order, one function per word of `covidnet-node train`.

Each reads what the one before left in the runs folder; a stage that was stopped goes on where
it was. From a data folder to shipped weights: segmenter, selfsupervise, pretrain,
classifier, calibrate, export.
"""

from pathlib import Path

from covidnet_node.models.manifest import Manifest
from covidnet_node.models.networks import load_networks
from covidnet_node.training import calibrate as calibration
from covidnet_node.training.ablation import AblationOrder
from covidnet_node.training.begun import note_calibration
from covidnet_node.training.classifier import pretrain_member, train_member
from covidnet_node.training.crops import cut_crops
from covidnet_node.training.dataset import open_folder
from covidnet_node.training.evaluation.ablation_card import Ablation, measure_ablation
from covidnet_node.training.evaluation.leave_out_figures import LeaveOut, measure_left_out
from covidnet_node.training.export import export_weights, figures_of
from covidnet_node.training.leave_out import LeaveOutOrder
from covidnet_node.training.lungs import fit_lung_limits
from covidnet_node.training.probing.probes import Order, Probes, run_probes
from covidnet_node.training.recipe import Recipe
from covidnet_node.training.segmenter import train_segmenter
from covidnet_node.training.selfsupervise import selfsupervise_member
from covidnet_node.training.unseen_lungs import UnseenLungs, UnseenOrder, measure_unseen_lungs
from covidnet_node.training.view import fit_view


def segmenter(data: Path, runs: Path, minutes: float, recipe: Recipe) -> None:
    """Learn where the lungs are, then cut them out of every film."""
    folder = open_folder(data)
    train_segmenter(folder, runs, minutes, recipe)
    fit_lung_limits(folder, runs, recipe)
    cut_crops(folder, runs, recipe)


def selfsupervise(data: Path, runs: Path, minutes: float, recipe: Recipe) -> None:
    """Teach every member's trunk to restore masked films; the minutes are shared."""
    folder = open_folder(data)
    for member in recipe.members:
        selfsupervise_member(folder, runs, member.name, minutes / len(recipe.members), recipe)


def pretrain(data: Path, runs: Path, minutes: float, recipe: Recipe) -> None:
    """Teach every member pneumonia against normal; the minutes are shared."""
    folder = open_folder(data)
    for member in recipe.members:
        pretrain_member(folder, runs, member.name, minutes / len(recipe.members), recipe)


def classifier(data: Path, runs: Path, minutes: float, recipe: Recipe) -> None:
    """Fine-tune every member into the three classes; the minutes are shared."""
    folder = open_folder(data)
    for member in recipe.members:
        train_member(folder, runs, member.name, minutes / len(recipe.members), recipe)


def calibrate(data: Path, runs: Path, recipe: Recipe) -> None:
    """Fit temperature, thresholds and distances on the validation split."""
    folder = open_folder(data)
    calibration.calibrate(folder, runs, recipe)
    fit_view(folder, runs, recipe)
    note_calibration(folder, runs, recipe)


def export(data: Path, runs: Path, weights: Path, recipe: Recipe) -> Manifest:
    """Write the weights folder, measure it as the node would run it, and write the figures in."""
    folder = open_folder(data)
    manifest = export_weights(folder, runs, weights, recipe)
    figures = figures_of(folder, load_networks(manifest, weights, "cpu"), recipe)
    return export_weights(folder, runs, weights, recipe, figures)


def probes(data: Path, runs: Path, order: Order, recipe: Recipe) -> Probes:
    """Ask what fresh networks learn from what should not matter; ships nothing."""
    return run_probes(open_folder(data), runs, order, recipe)


def unseen_lungs(
    data: Path, runs: Path, order: UnseenOrder, recipe: Recipe
) -> tuple[UnseenLungs, ...]:
    """Outline the lungs of a hospital that a segmenter never saw; ships nothing."""
    return measure_unseen_lungs(open_folder(data), runs, order, recipe)


def leave_out(data: Path, runs: Path, order: LeaveOutOrder, recipe: Recipe) -> LeaveOut:
    """Score every group by a member that never saw it; ships nothing."""
    return measure_left_out(open_folder(data), runs, order, recipe)


def ablation(data: Path, runs: Path, order: AblationOrder, recipe: Recipe) -> Ablation:
    """Compare a member with and without self-supervised pretraining; ships nothing."""
    return measure_ablation(open_folder(data), runs, order, recipe)
