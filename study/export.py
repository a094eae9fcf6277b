"""Export networks of a finished study as files: `python -m study.export results/NAME --pareto`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from analysis import selection
from study import addresses, commandline
from study.errors import UserError, printable
from study.path_arguments import Folder, StudyFolder
from study.records import study_folder
from study.records.columns import CONFIGURATION
from study.records.paths import STUDY, model_of
from study.records.study_folder import Study

if TYPE_CHECKING:
    from torch import Tensor, nn

    from study.compression.compressed_file import Network


PROG = "python -m study.export"
FORMATS = ("codebook", "safetensors", "onnx", "onnx-codebook", "onnx-int8", "exported-program")
DEFAULT = FORMATS[:3]
"""What is written without --formats, of what the study's networks have."""
SHRUNK = FORMATS[2:]
"""Formats of the network after exact shrinking."""
FOLDER = "exported"
CALIBRATION = 512
"""Training images on which the ranges of onnx-int8 are found."""


@dataclass(frozen=True)
class Options:
    """Arguments of the command. Give one of --pareto, --trial and --best."""

    study: Annotated[tyro.conf.Positional[StudyFolder], tyro.conf.arg(metavar="results/NAME")]
    """Folder of the study."""
    pareto: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Export every member of the front."""
    trial: str | None = None
    """Export this trial or baseline, such as t014."""
    best: str | None = None
    """Export the member of the front that answers a question, as `python -m analysis.query` takes it: "max compression
    with accuracy drop <= 0.2" or "min file_bytes where val_accuracy >= 98"."""
    to: Folder | None = None
    """Folder to write to. Default: results/NAME/exported; of a study in a bucket, exported."""
    formats: str | None = None
    """Any of codebook,safetensors,onnx,onnx-codebook,onnx-int8,exported-program; see study/README.md, "Which file for
    which runtime". Default: codebook,safetensors,onnx, as far as the study's networks have them."""
    data_dir: Folder | None = None
    """For onnx-int8, which looks at training images: where the data set lies. Default: the study's own folder."""
    network: str | None = None
    """Name of the study's network, where it is a module:function, to allow that it be imported."""
    max_parameters: Annotated[int, tyro.conf.arg(metavar="N")] = 150_000_000
    """Parameters of a network at most; nothing is built for a larger one."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return commandline.status(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> int:
    options: Options = commandline.parse(Options, PROG, __doc__, argv)
    formats = _formats(options.formats)
    if options.max_parameters < 1:
        raise UserError(f"--max-parameters {options.max_parameters}: give 1 or more")
    study = study_folder.load(options.study)
    chosen = _chosen(options, study)
    if any(name.startswith("onnx") for name in formats or DEFAULT):
        check_onnx()  # before anything is written
    folder = options.to or (Path() if addresses.is_reading_copy(options.study) else options.study) / FOLDER
    for trial_id in chosen:
        wanted = formats or (DEFAULT if has_codebook(study, trial_id) else DEFAULT[1:])
        exported = export(study, trial_id, folder, wanted, custom=options.network,
                          max_parameters=options.max_parameters, data_dir=options.data_dir)  # fmt: skip
        for path in exported.paths:
            print(printable(f"{path}  {path.stat().st_size:,} bytes"))
        if exported.shrinking:
            print(printable(f"{trial_id}  {exported.shrinking}"))
    return 0


def _formats(given: str | None) -> tuple[str, ...]:
    """The formats asked for; none without the flag."""
    formats = tuple(f.strip() for f in given.split(",")) if given is not None else ()
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--formats {given}: {name!r} is not a format; give any of {','.join(FORMATS)}")
    return formats


def _chosen(options: Options, study: Study) -> list[str]:
    """Ids of the trials that exactly one of the three flags asks for."""
    given = {"--pareto": options.pareto or None, "--trial": options.trial, "--best": options.best}
    named = [flag for flag, value in given.items() if value is not None]
    if len(named) != 1:
        raise UserError(f"{' and '.join(named) or 'nothing chosen'}: give one of --pareto, --trial ID, --best QUESTION")
    if options.trial is not None:
        return [selection.require_trial(options.trial, study)]
    front = selection.front(study)
    return [selection.best(options.best, front)] if options.best is not None else list(front["trial_id"])


def has_codebook(study: Study, trial_id: str) -> bool:
    """Whether the study kept a compressed file of the trial; a KD study, or an uncompressed network, has none."""
    return _model_file(study, trial_id, FORMATS[0]).exists()


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        paths: of the files, in the order of the formats.
        shrinking: what was removed for the formats of `SHRUNK`, or why nothing was, as a line; "" without such formats.
    """

    paths: list[Path]
    shrinking: str = ""


def export(
    study: Study,
    trial_id: str,
    folder: Path,
    formats: tuple[str, ...],
    *,
    custom: str | None = None,
    max_parameters: int | None = None,
    data_dir: Path | None = None,
) -> Exported:
    """Write one trial's network in some of `FORMATS`, each file under another name and then renamed. Nothing is written
    unless all of them can be made.

    Args:
        trial_id: one whose weights were kept.
        custom: name of the network, where it is a `module:function`, to allow that it be imported.
        max_parameters: of the network; None for a study of one's own.
        data_dir: where the data set lies, if not where the study had it.
    Raises:
        UserError: a network that may not or cannot be built, weights that are not its own, a compressed file that
            there is not, data that are missing, or a folder that cannot be written.
    """
    from study.compression.exported_files import SUFFIXES
    from study.records.atomic_files import write_bytes

    _check_configuration(study, trial_id)
    source = _model_file(study, trial_id, "codebook")
    model, network = _read(study, trial_id, source, formats, custom, max_parameters)
    shrunk, shrinking = _shrunk(model, network) if set(formats) & set(SHRUNK) else (model, "")
    images = partial(_calibration_images, study, network, data_dir)
    contents = {name: _content(name, source, model, shrunk, network, images) for name in dict.fromkeys(formats)}
    paths = [folder / f"{trial_id}{SUFFIXES[name]}" for name in contents]
    try:
        for path, content in zip(paths, contents.values(), strict=True):
            write_bytes(path, content)
    except OSError as error:
        raise UserError(f"--to {folder}: cannot be written ({error.strerror}); give another folder") from error
    return Exported(paths, shrinking)


def _read(
    study: Study, trial_id: str, source: Path, formats: tuple[str, ...], custom: str | None, max_parameters: int | None
) -> tuple[nn.Module, Network]:
    """The trial's network with its weights, and what builds and feeds it."""
    from study.compression import compressed_file

    if source.exists():
        decoded = compressed_file.read(source, custom=custom, max_parameters=max_parameters)
        return decoded.model, decoded.network
    if "codebook" in formats:
        raise UserError(f"--formats codebook: {trial_id} was not compressed; give {','.join(FORMATS[1:])}")
    network = _network(study, trial_id)
    return _plain(network, _model_file(study, trial_id, "safetensors"), custom, max_parameters), network


def _shrunk(model: nn.Module, network: Network) -> tuple[nn.Module, str]:
    """The network after exact shrinking, and what that removed, as a line."""
    from study.compression.shrinking import shrink_with_report

    shrunk, report = shrink_with_report(model, network.input_shape)
    if report.reason:
        return model, f"not shrunk: {report.reason}"
    changed = [f"{row.units[0]} → {row.units[1]}" for row in report.layers if row.units[0] != row.units[1]]
    before, after = report.parameters
    if after >= before:
        return model, "not shrunk: every unit is in use"
    units = f" ({', '.join(changed)} units)" if changed else ""
    return shrunk, f"shrunk: {before:,} → {after:,} parameters{units}"


def _content(
    format_name: str, source: Path, model: nn.Module, shrunk: nn.Module, network: Network, images: Callable[[], Tensor]
) -> bytes:
    """The file of one format."""
    from study.artifacts.cache import arrays_bytes
    from study.compression import exported_files
    from study.training.network import state_arrays

    if format_name == "codebook":
        return source.read_bytes()
    if format_name == "safetensors":
        return arrays_bytes(state_arrays(model), exported_files.metadata_of(network))
    if format_name == "exported-program":
        return exported_files.program_bytes(shrunk, network)
    # Shrinking folds batch-norm into the weights, which then have more values than a small table holds.
    networks = (shrunk, model) if format_name == "onnx-codebook" and shrunk is not model else (shrunk,)
    return min((exported_files.onnx_bytes(format_name, m, network, images) for m in networks), key=len)


def _calibration_images(study: Study, network: Network, data_dir: Path | None) -> Tensor:
    """Training images as the network takes them.

    Raises:
        UserError: the data set is not where it is looked for, or has images of another shape.
    """
    from study.commandline import data_folder
    from study.data.images import normalise
    from study.data.registry import load

    recorded = study.meta.get("settings", {}).get("data_dir")
    folder = data_dir or (Path(recorded) if recorded else None)
    try:
        data, _ = load(network.dataset, data_folder(network.dataset, folder), split_seed=int(study.meta["seed"]),
                       size=min(network.input_shape[1:]))  # fmt: skip
    except UserError as error:
        raise UserError(f"--formats onnx-int8 takes training images of {network.dataset}: {error}") from error
    if data.shape != tuple(network.input_shape):
        raise UserError(f"--formats onnx-int8: the images of {network.dataset} are no longer of the shape that the "
                        "network takes; give the study's own with --data-dir, or leave onnx-int8 out")  # fmt: skip
    spread = data.train.images[:: max(1, len(data.train) // CALIBRATION)]  # those of a folder come class by class
    return normalise(spread[:CALIBRATION], network.mean, network.std)


def _model_file(study: Study, trial_id: str, suffix: str) -> Path:
    return model_of(study.folder, trial_id, f".{suffix}")


def _check_configuration(study: Study, trial_id: str) -> None:
    """Refuse a network of another configuration than was tested under this id.

    Raises:
        UserError: with the file.
    """
    from study.artifacts.cache import read_metadata

    path, rows = _model_file(study, trial_id, "safetensors"), study.confirmed
    tested = rows[(rows["trial_id"] == trial_id) & (rows["seed"] == study.meta["seed"])]
    stored = read_metadata(path).get(CONFIGURATION, "")
    if stored and CONFIGURATION in tested and any(known and known != stored for known in tested[CONFIGURATION]):
        raise UserError(f"{path}: is not of the configuration that was tested as {trial_id}; restore it from a copy")


def _network(study: Study, trial_id: str) -> Network:
    """The network of a trial that left no compressed file, from `study.json` and, where it was searched, its row."""
    from study.compression.compressed_file import Network
    from study.compression.file_checks import check_entries

    try:
        return Network(*check_entries(*_described(study, trial_id)))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{study.folder / STUDY}: no network can be built from it ({reason}); restore it from a copy"
                        ) from error  # fmt: skip


def _described(study: Study, trial_id: str) -> tuple[Any, ...]:
    """What `study.json` says of the network, in the order of `Network`."""
    from study.settings import WITH_WIDTH
    from study.training.network import width_option

    row = study.trials[study.trials["trial_id"] == trial_id].iloc[0].dropna()  # without what that trial has not
    models, dense = study.meta.get("models", {}), study.meta["dense"]
    role = dense.get(row["baseline"]) or dense.get("") or next(iter(models), "")
    own = study.meta.get("baselines", {}).get(row["baseline"], {})
    searched = {name: row[name] for name in study.meta["space"] if name in row}
    values = own if row["baseline"] else searched
    recorded = study.recorded("models", role)
    name, options = str(values.get(role, recorded["name"])), recorded.get("options", {})
    if f"{role}_width" in values:
        options = width_option(float(values[f"{role}_width"]))
    elif role in values and name not in WITH_WIDTH:  # the study's width is not meant for it, see `settings_with`
        options = {}
    shape, classes, name_of_data = (study.recorded("data", part) for part in ("shape", "classes", "name"))
    mean, std = (study.recorded("data", part) for part in ("mean", "std"))
    return name, options, shape, len(classes), mean, std, name_of_data


def _plain(network: Network, path: Path, custom: str | None, max_parameters: int | None) -> nn.Module:
    """The network with the weights that a study kept of it, in evaluation mode."""
    from study.artifacts.cache import SharedWork, read_arrays
    from study.compression.compressed_file import build, check_finite
    from study.models.state import load_tensors

    model = build(network, custom, str(path), max_parameters)
    try:
        # A teacher's file holds its logits as well.
        load_tensors(model, SharedWork(read_arrays(path)).weights().tensors())
    except RuntimeError as error:
        raise UserError(f"{path}: not weights of the network {network.name} in study.json; "
                        "restore both from a copy") from error  # fmt: skip
    check_finite(model, str(path))
    return model.eval()


def check_onnx() -> None:
    import importlib.util

    absent = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(f"--formats onnx: needs {' and '.join(absent)}; pip install 'compression-study[onnx]', or give "
                        "--formats codebook,safetensors")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
