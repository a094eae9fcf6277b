"""Score networks in files, side by side: `python -m study.evaluate FILE [FILE ...]`. Takes compressed networks and
every format of `study.export`; prints accuracy, bytes and latency."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from study import commandline
from study.errors import UserError, one_line, printable
from study.path_arguments import Folder, StudyFile
from study.records import object_store
from study.records.columns import Row
from study.records.outputs import json_text
from study.settings import MAX_SEED

if TYPE_CHECKING:
    from study.compression.compressed_file import Decoded, Network
    from study.data.splits import Part, Splits

PROG = "python -m study.evaluate"


@dataclass(frozen=True)
class Options:
    """Arguments of the command."""

    files: Annotated[tyro.conf.Positional[tuple[StudyFile, ...]], tyro.conf.arg(metavar="FILE")]
    """Networks: .codebook, .safetensors, .onnx or .pt2 files that study.export wrote, or
    results/NAME/models/t014.codebook. Latency is compared with that of the first."""
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
    """Name of the file's network, to allow that code be run: a module:function is imported, and a .pt2 file loaded."""
    max_parameters: Annotated[int, tyro.conf.arg(metavar="N")] = 150_000_000
    """Parameters of the file's network at most; nothing is built for a larger one."""
    json: bool = False
    """Print JSON instead of tables."""

    @property
    def file(self) -> Path:
        """The first of them."""
        return self.files[0]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return commandline.status(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> int:
    options: Options = commandline.parse(Options, PROG, __doc__, argv)
    if not options.files:
        raise UserError("missing: FILE; give a network, such as results/NAME/models/t014.codebook")
    for path in options.files:
        object_store.fetch(path)
    rows = [report(dataclasses.replace(options, files=(path,))) for path in options.files]
    _add_latencies(options, rows)
    if options.json:
        print(json_text(rows if len(rows) > 1 else rows[0]), end="")
    elif len(rows) == 1 and "tensors" in rows[0]:
        _print(rows[0])
    else:
        _print_side_by_side(rows)
    return 0


def report(options: Options) -> Row:
    """Everything the command prints of its first file, but latency, as JSON values: accuracy and sparsity in percent,
    loss in nats per example.

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
    from study.compression.exported_files import open_file
    from study.training.loop import evaluate

    opened = open_file(options.file, custom=options.network, max_parameters=options.max_parameters)
    data, part = _load(options, opened.network)
    try:
        score = evaluate(opened.model, part, data)
    except Exception as error:  # whatever a layer raises when its buffers hold what they never held in training
        raise UserError(f"{options.file}: its network fails on the images ({one_line(error)})") from error
    return {
        "file": str(options.file),
        "network": opened.network.name,
        "data": data.title,
        "part": options.part,
        "examples": len(part),
        "accuracy": score.accuracy,
        "loss": score.loss,
        "file_bytes": options.file.stat().st_size,
        "runtime": opened.runtime,
        **(_sizes(opened.decoded, options.file.stat().st_size) if opened.decoded else {}),
    }


def _sizes(decoded: Decoded, file_bytes: int) -> Row:
    """What a compressed file says beside its network: sizes and ratios, and a row for each tensor."""
    from study.compression.quantised_weights import shared_parameters
    from study.compression.size_metrics import csr_bits, ratio, size_metrics, tensor_table

    parameters = shared_parameters(decoded.model)
    weights = sum(p.numel() for p in parameters)
    return {
        "weights": weights,
        "compression_ratio": ratio(parameters, file_bytes),
        "csr_ratio": 32 * weights / csr_bits(decoded.quantised, parameters),
        **size_metrics(decoded.quantised),
        "tensors": [
            dataclasses.asdict(row) | {"sparsity": row.sparsity}
            for row in tensor_table(decoded.model, decoded.quantised, decoded.network)
        ],
    }


def _add_latencies(options: Options, rows: list[Row]) -> None:
    """Add to each row its latency, one image at a time on one thread, and its ratio to the first, measured in turn."""
    from study.compression import latency
    from study.compression.exported_files import open_file

    opened = [open_file(p, custom=options.network, max_parameters=options.max_parameters) for p in options.files]
    first = opened[0]
    if other := next((f for f in opened if f.network.input_shape != first.network.input_shape), None):
        path = options.files[opened.index(other)]
        raise UserError(f"{path}: takes images of another shape than {options.file}; evaluate it by itself")
    for row, file in zip(rows, opened, strict=True):
        if file is first:
            found = latency.measure(file.source, file.network.input_shape)
            row |= {"latency_ratio": 1.0}
        else:
            both = latency.compare(first.source, file.source, file.network.input_shape)
            found = both.candidate
            row |= {"latency_ratio": both.ratio, "latency_ratio_low": both.low, "latency_ratio_high": both.high}
        row |= {"latency_ms": found.median_ms, "latency_p95_ms": found.p95_ms}


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
    same = name == network.dataset or registry.takes_one_size(network.name)
    size = side if same else registry.minimum_size(network.name)
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
        ("latency in PyTorch, one image, one thread", f"{scores['latency_ms']:.3f} ms"),
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


def _print_side_by_side(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, first = Console(), rows[0]
    console.print(Text(printable(f"{first['data']} {first['part']}, {first['examples']:,} images; latency of one image "
                                 "on one thread, in turn with the first file")))  # fmt: skip
    table = Table(box=None)
    headings = ("file", "accuracy (%)", "loss (nats)", "bytes", "latency (ms)", "p95 (ms)", "÷ first", "runs in")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("file", "runs in") else "right", overflow="fold")
    names = [Path(row["file"]).name for row in rows]
    for row, name in zip(rows, names, strict=True):
        shown = name if names.count(name) == 1 else row["file"]
        table.add_row(Text(printable(shown)), f"{row['accuracy']:.2f}", f"{row['loss']:.4f}",
                      f"{row['file_bytes']:,}", f"{row['latency_ms']:.3f}", f"{row['latency_p95_ms']:.3f}",
                      f"{row['latency_ratio']:.2f}", row["runtime"])  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
