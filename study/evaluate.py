"""Score a compressed network: `python -m study.evaluate FILE`. Decodes the file, reads the data set, prints."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from study import commandline
from study.errors import UserError, one_line, printable
from study.path_arguments import File, Folder
from study.records.columns import Row
from study.records.outputs import json_text
from study.settings import MAX_SEED

if TYPE_CHECKING:
    from study.compression.compressed_file import Network
    from study.data.splits import Part, Splits

PROG = "python -m study.evaluate"


@dataclass(frozen=True)
class Options:
    """Arguments of the command."""

    file: Annotated[tyro.conf.Positional[File], tyro.conf.arg(metavar="FILE")]
    """Compressed network, such as results/NAME/models/t014.codebook."""
    dataset: str | None = None
    """Data set to score it on. Default: the one it was trained on."""
    data_dir: Folder | None = None
    """Where the data set lies, or is downloaded to. Default: ~/.cache/compression-study; digits needs none."""
    image_size: int | None = None
    """With --dataset folder: the study's --image-size. Default: what the network takes, if sizes differ."""
    test_fraction: float | None = None
    """With --dataset folder: the study's --test-fraction."""
    skip_damaged: bool = False
    """With --dataset folder: leave out damaged images."""
    part: Literal["test", "validation"] = "test"
    """Part of the data set."""
    split_seed: int = 0
    """Seed that divided train from validation: the study's --seed. The test part does not depend on it."""
    network: str | None = None
    """Name of the file's network, where it is a module:function, to allow that it be imported."""
    max_parameters: Annotated[int, tyro.conf.arg(metavar="N")] = 150_000_000
    """Parameters of the file's network at most; nothing is built for a larger one."""
    json: bool = False
    """Print JSON instead of tables."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return commandline.status(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> int:
    options: Options = commandline.parse(Options, PROG, __doc__, argv)
    scores = report(options)
    if options.json:
        print(json_text(scores), end="")
    else:
        _print(scores)
    return 0


def report(options: Options) -> Row:
    """Everything the command prints, as JSON values: accuracy and sparsity in percent, loss in nats per example.

    Raises:
        UserError: a file or a data set that cannot be read, or that do not fit each other.
    """
    if not 0 <= options.split_seed <= MAX_SEED:
        raise UserError(f"--split-seed {options.split_seed}: must be between 0 and {MAX_SEED}, as a study's --seed is")
    if options.max_parameters < 1:
        raise UserError(f"--max-parameters {options.max_parameters}: give 1 or more")
    if options.image_size is not None and not 1 <= options.image_size <= 4096:
        raise UserError(f"--image-size {options.image_size}: give 1 to 4096")
    if options.test_fraction is not None and not 0 < options.test_fraction < 1:
        raise UserError(f"--test-fraction {options.test_fraction}: must be above 0 and below 1")
    # These bring torch, which --help need not wait for.
    from study.compression import compressed_file
    from study.compression.quantised_weights import shared_parameters
    from study.compression.size_metrics import csr_bits, ratio, size_metrics, tensor_table
    from study.training.loop import evaluate

    decoded = compressed_file.read(options.file, custom=options.network, max_parameters=options.max_parameters)
    data, part = _load(options, decoded.network)
    try:
        score = evaluate(decoded.model, part, data)
    except Exception as error:  # whatever a layer raises when its buffers hold what they never held in training
        raise UserError(f"{options.file}: its network fails on the images ({one_line(error)})") from error
    parameters = shared_parameters(decoded.model)
    file_bytes = options.file.stat().st_size
    weights = sum(p.numel() for p in parameters)
    return {
        "file": str(options.file),
        "network": decoded.network.name,
        "data": data.title,
        "part": options.part,
        "examples": len(part),
        "accuracy": score.accuracy,
        "loss": score.loss,
        "weights": weights,
        "file_bytes": file_bytes,
        "compression_ratio": ratio(parameters, file_bytes),
        "csr_ratio": 32 * weights / csr_bits(decoded.quantised, parameters),
        **size_metrics(decoded.quantised),
        "tensors": [
            dataclasses.asdict(row) | {"sparsity": row.sparsity}
            for row in tensor_table(decoded.model, decoded.quantised)
        ],
    }


def _load(options: Options, network: Network) -> tuple[Splits, Part]:
    """The data set, normalised as the network was trained, and the part to score."""
    from study.data.image_folder import MixedSizes, Reading
    from study.data.registry import load
    from study.models import registry
    from study.user_code import is_custom

    name = options.dataset or network.dataset
    if is_custom(name) and options.dataset is None:
        raise UserError(f"{options.file}: its data set {name} is a user's code. If you trust it, add --dataset {name}")
    folder = commandline.data_folder(name, options.data_dir)
    # A study enlarges its images to what the largest of its networks needs; the shorter side says what that was.
    side = min(network.input_shape[1:], default=1)
    size = side if name == network.dataset else registry.minimum_size(network.name)
    reading = Reading(options.image_size, options.test_fraction, options.skip_damaged)
    try:
        data, test = load(name, folder, split_seed=options.split_seed, size=size, reading=reading)
    except MixedSizes:  # as the study had them, unless it enlarged them further
        reading = dataclasses.replace(reading, image_size=side)
        data, test = load(name, folder, split_seed=options.split_seed, size=size, reading=reading)
    for what, has, needs in (
        ("images", "×".join(map(str, data.shape)), "×".join(map(str, network.input_shape))),
        ("classes", str(len(data.classes)), str(network.classes)),
    ):
        if has != needs:
            raise UserError(f"--dataset {name}: its {what} ({has}) do not fit {options.file}, which takes {needs}; "
                            f"give one like {network.dataset}")  # fmt: skip
    if options.part == "validation" and name == network.dataset and data.mean != (network.train_mean or network.mean):
        raise UserError(f"--split-seed {options.split_seed}: not the split that {options.file} was trained with, whose "
                        "training part has another mean; give the --seed of its study")  # fmt: skip
    data = dataclasses.replace(data, mean=network.mean, std=network.std)
    return data, test if options.part == "test" else data.validation


def _print(scores: Row) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(Text(printable(f"{scores['file']}: {scores['network']}, {scores['weights']:,} weights")))
    numbers = Table(box=None, show_header=False)
    for label, value in (
        (f"accuracy, {scores['data']} {scores['part']} ({scores['examples']:,} images)", f"{scores['accuracy']:.2f} %"),
        ("loss", f"{scores['loss']:.4f} nats"),
        ("sparsity", f"{scores['sparsity']:.2f} %"),
        ("codebook values in use", f"{scores['codebook_values_used']}"),
        ("file", f"{scores['file_bytes']:,} bytes"),
        ("compression ratio (file bytes)", f"{scores['compression_ratio']:.1f} ×"),
        ("1 / nonzero share", f"{scores['nonzero_ratio']:.1f} ×" if "nonzero_ratio" in scores else "no nonzero"),
        ("compression ratio (CSR, Han et al.)", f"{scores['csr_ratio']:.1f} ×"),
        ("compression ratio (entropy of the symbols)", f"{scores['entropy_ratio']:.1f} ×"),
    ):
        numbers.add_row(Text(printable(label)), value)
    console.print(numbers)
    table = Table(box=None)
    headings = ("tensor", "shape", "weights", "nonzero", "sparsity (%)", "values", "bytes in file")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in headings[:2] else "right")
    for row in scores["tensors"]:
        shape = "×".join(map(str, row["shape"]))
        table.add_row(Text(printable(row["name"])), shape, f"{row['weights']:,}", f"{row['nonzero']:,}",
                      f"{row['sparsity']:.2f}", str(row["values"]), f"{row['coded_bytes']:,}")  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
