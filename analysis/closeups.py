"""Figures that look into one network of a study: the weights of the answering trial, and what the teacher knows."""

from __future__ import annotations

from analysis import knowledge, weight_figures, weights
from analysis.items import Group, Item
from analysis.summary import Summary
from analysis.tables import counted
from analysis.weights import Trace


def groups(s: Summary) -> list[Group]:
    """Groups of figures for which the study kept what they need."""
    found = []
    if asked := knowledge.asked(s.study):
        found.append(Group("What the teacher knows", [_knowledge(s, asked)]))
    wanted = [s.best["trial_id"]] if s.best is not None and s.compresses else []
    trial_id, trace = weights.traced(s.study, [*wanted, *s.front["trial_id"], *s.searched["trial_id"]])
    if trace:
        found += [Group(f"The weights of {trial_id}, epoch by epoch", _moving(trace)),
                  Group(f"What is left of {trial_id}", _left(trace))]
    if len(weights.provisional(s.study)):
        found.append(Group("How early the size is known", [_provisional(s)]))
    return found


def _knowledge(s: Summary, asked: Trace) -> Item:
    shown, classes = knowledge.classes_shown(asked), len(s.study.meta.get("data", {}).get("classes", []))
    some = f" (the first {shown} of {classes}; the others have the rest of each row)" if shown < classes else ""
    caption = (f"Of each class{some} the validation image that the teacher gets right with the smallest lead. Colours "
               "grow with the square root of the probability. A student that is trained at a higher temperature is "
               "told more of which classes an image resembles.")
    return Item("knowledge", knowledge.dark_knowledge(s.study, s.best), "Dark knowledge.", caption,
                f"Table of {counted(shown, 'image')} and the softened probabilities that the teacher gives each class, "
                "which spread over more classes as the temperature rises.")


def _moving(trace: Trace) -> list[Item]:
    total = int(trace["counts/0"].sum())
    some = min(weight_figures.MOST_POINTS, len(trace["index"]))
    told = " before clustering, after its epochs, and quantised." if "means/0" in trace else " as they are pruned."
    under = ("The line is what the mixture expects in each bin, diamonds are its components with ± 2σ. "
             if "means/0" in trace else "")
    items = [
        Item("weights", weight_figures.weight_histogram(trace), f"All {total:,} weights, by value.",
             under + "Counts are on a logarithmic scale; the outermost bins hold what lies beyond.",
             f"Histogram of {total:,} weights{told}"),
        Item("joint", weight_figures.joint(trace), "Where each weight went.",
             f"{some:,} weights: half of them drawn evenly, half in proportion to their square before, since of those "
             "drawn evenly hardly any survive.",
             f"Scatter plot of {some:,} weights before against after, epoch by epoch."),
    ]
    return items


def _left(trace: Trace) -> list[Item]:
    layers, values = weights.layers(trace), weights.codebook(trace)
    items = [
        Item("layers", weight_figures.layer_sparsity(trace), "Sparsity of each layer.",
             "Share of weights at zero, of all weights and biases of the layer.",
             f"Bar chart of the sparsity of {len(layers)} tensors, from {layers['sparsity'].min():.1f} to "
             f"{layers['sparsity'].max():.1f} percent."),
        Item("occupancy", weight_figures.codebook_occupancy(trace), "Use of the codebook.",
             "How many weights have each of its values, on a logarithmic scale.",
             f"Stem plot of the {len(values)} values that weights have."),
    ]
    if "means/0" in trace:
        items.append(Item(
            "priors", weight_figures.prior_shapes(trace), "What a weight costs.",
            "L2 regularisation draws every weight to zero. The mixture leaves a weight alone once it has a value that "
            "others have too.",
            "Line chart of the cost of a weight by its value, under an L2 prior and under the mixture."))
    return items


def _provisional(s: Summary) -> Item:
    drawn = weight_figures.provisional_sparsity(s.study)
    caption = ("What quantising at a quarter, half and three quarters of the epochs would have given; on the dotted "
               "line nothing changed after.")
    if len(drawn.data[0].x) == weight_figures.MOST_TRIALS:
        caption += f" {weight_figures.MOST_TRIALS} trials are drawn, chosen at random."
    return Item("provisional", drawn, "Provisional against final sparsity.", caption,
                f"Scatter plot of provisional against final sparsity of {counted(len(drawn.data[0].x), 'trial')}.")
