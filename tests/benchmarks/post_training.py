"""Post-training quantisation of a network that others trained, against plain rounding: bytes of the file, accuracy.

    python tests/benchmarks/post_training.py --data-dir DIR --checkpoint resnet20.th    # some minutes on one core

The configurations are fixed beforehand, so each network meets the test part once. Batch-norm's statistics are left as
they were, computed again from the calibration images, or moved by what the rounding did to these images.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import torch
from torch import nn

from study.compression import batch_norm, compressed_file
from study.compression.quantised_weights import QuantisedWeights
from study.data import registry
from study.data.splits import Part, Splits
from study.methods.magnitude.pruning import post_training
from study.methods.ptq.calibration import calibration_part, sensitivities
from study.methods.ptq.quantise import Hparams, quantise
from study.models import registry as models
from study.models.checkpoint_file import fit_state, read_state
from study.models.state import load_tensors, tensors_of
from study.normalisation import parse
from study.training.loop import evaluate

POINTS = (
    Hparams(bits=8),
    Hparams(bits=4),
    Hparams(bits_per_weight=3.0, sensitivity_power=0.7, rate_weight=0.0),
    Hparams(bits_per_weight=2.0, sensitivity_power=0.7, rate_weight=0.0),
    Hparams(bits_per_weight=2.0, sensitivity_power=0.7, rate_weight=0.02),
    Hparams(bits_per_weight=2.0, sensitivity_power=1.0, rate_weight=0.0),
    Hparams(bits_per_weight=2.0, sensitivity_power=0.0, rate_weight=0.0),
    Hparams(bits_per_weight=1.5, sensitivity_power=0.7, rate_weight=0.0),
)


def named(h: Hparams) -> str:
    if h.bits:
        return f"plain rounding to {h.bits} bits"
    return f"{h.bits_per_weight:g} bits a weight, power {h.sensitivity_power:g}, rate weight {h.rate_weight:g}"


def accuracies(model: nn.Module, calibration: Splits, before: batch_norm.Statistics, test: Part) -> list[float]:
    """With the statistics as they were, computed again, and moved."""
    state = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    scores = [evaluate(model, test, calibration).accuracy]
    batch_norm.recalibrate(model, calibration)
    scores.append(evaluate(model, test, calibration).accuracy)
    load_tensors(model, state)
    batch_norm.follow(model, calibration, before)
    return [*scores, evaluate(model, test, calibration).accuracy]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="a folder of images, as for --dataset folder")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--normalise", default="imagenet")
    parser.add_argument("--calibration-examples", type=int, default=512)
    parser.add_argument("--test-images", type=int, default=3000, help="of the test part, drawn by a fixed seed")
    o = parser.parse_args()
    torch.set_num_threads(1)
    data, test = registry.load("folder", o.data_dir)
    test = test[torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: o.test_images]]
    if constants := parse(o.normalise):
        data = dataclasses.replace(data, mean=constants.mean, std=constants.std)
    model = models.build(o.network, data.shape, len(data.classes)).eval()
    load_tensors(model, fit_state(read_state(o.checkpoint), model, f"--network {o.network}"))
    trained = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    examples = calibration_part(data, o.calibration_examples, seed=0)
    calibration = dataclasses.replace(data, train=examples)
    print(f"uncompressed: {evaluate(model, test, data).accuracy:.2f} %", flush=True)
    begin = time.process_time()
    before = batch_norm.measure(model, calibration)
    layers = sensitivities(model, examples, data, seed=0)
    print(f"calibration: {time.process_time() - begin:.1f} s")
    print("| configuration | bytes | ratio | statistics as they were | again | moved | CPU s |\n" + "|---" * 7 + "|")
    for hparams in POINTS:
        load_tensors(model, trained)
        begin = time.process_time()
        quantised: QuantisedWeights
        quantised = post_training(model, hparams.bits) if hparams.bits else quantise(model, layers, hparams)
        seconds = time.process_time() - begin
        header = compressed_file.network_of(o.network, {}, data)
        size = len(compressed_file.encode(model, quantised, header))
        scores = " | ".join(f"{score:.2f} %" for score in accuracies(model, calibration, before, test))
        ratio = 4 * len(quantised.assignment) / size
        print(f"| {named(hparams)} | {size:,} | {ratio:.1f} × | {scores} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
