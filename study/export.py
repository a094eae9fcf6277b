"""Export networks of a finished study as files: `python -m study.export results/NAME --pareto`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from analysis import selection
from study import commandline
from study.errors import UserError, printable
from study.path_arguments import Folder
from study.records import study_folder
from study.records.columns import CONFIGURATION
from study.records.paths import STUDY, model_of
from study.records.study_folder import Study

if TYPE_CHECKING:
    from torch import nn

    from study.compression.compressed_file import Network


PROG = "python -m study.export"
FORMATS = ("codebook", "safetensors", "onnx")
FOLDER = "exported"


@dataclass(frozen=True)
class Options:
    """Arguments of the command. Give one of --pareto, --trial and --best."""

    study: Annotated[tyro.conf.Positional[Folder], tyro.conf.arg(metavar="results/NAME")]
    """Folder of the study."""
    pareto: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Export every member of the front."""
    trial: str | None = None
    """Export this trial or baseline, such as t014."""
    best: str | None = None
    """Export the member of the front that answers a question, as `python -m analysis.query` takes it: "max compression
    with accuracy drop <= 0.2" or "min file_bytes where val_accuracy >= 98"."""
    to: Folder | None = None
    """Folder to write to. Default: results/NAME/exported."""
    formats: str | None = None
    """Any of codebook,safetensors,onnx. Default: all that the study's networks have."""
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
    if not formats or "onnx" in formats:
        check_onnx()  # before anything is written
    folder = options.to or options.study / FOLDER
    for trial_id in chosen:
        wanted = formats or (FORMATS if has_codebook(study, trial_id) else FORMATS[1:])
        most = options.max_parameters
        for path in export(study, trial_id, folder, wanted, custom=options.network, max_parameters=most):
            print(printable(f"{path}  {path.stat().st_size:,} bytes"))
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


def export(
    study: Study,
    trial_id: str,
    folder: Path,
    formats: tuple[str, ...],
    *,
    custom: str | None = None,
    max_parameters: int | None = None,
) -> list[Path]:
    """Write one trial's network in some of `FORMATS`, each file under another name and then renamed.

    Args:
        trial_id: one whose weights were kept.
        custom: name of the network, where it is a `module:function`, to allow that it be imported.
        max_parameters: of the network; None for a study of one's own.
    Returns: the files written.
    Raises:
        UserError: a network that may not or cannot be built, weights that are not its own, a compressed file that
            there is not, or a folder that cannot be written.
    """
    from study.artifacts.cache import write_arrays
    from study.compression import compressed_file
    from study.records.atomic_files import write_bytes
    from study.training.network import state_arrays

    _check_configuration(study, trial_id)
    source = _model_file(study, trial_id, "codebook")
    if source.exists():
        decoded = compressed_file.read(source, custom=custom, max_parameters=max_parameters)
        model, network = decoded.model, decoded.network
    elif "codebook" in formats:
        raise UserError(f"--formats codebook: {trial_id} was not compressed; give {','.join(FORMATS[1:])}")
    else:
        network = _network(study, trial_id)
        model = _plain(network, _model_file(study, trial_id, "safetensors"), custom, max_parameters)
    paths = [folder / f"{trial_id}.{name}" for name in formats]
    try:
        for path in paths:
            if path.suffix == ".codebook":
                write_bytes(path, source.read_bytes())
            elif path.suffix == ".safetensors":
                write_arrays(path, state_arrays(model))
            else:
                write_bytes(path, onnx_bytes(model, network))
    except OSError as error:
        raise UserError(f"--to {folder}: cannot be written ({error.strerror}); give another folder") from error
    return paths


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
    from study.training.network import width_option

    row = study.trials[study.trials["trial_id"] == trial_id].iloc[0]
    models, dense = study.meta.get("models", {}), study.meta["dense"]
    role = dense.get(row["baseline"]) or dense.get("") or next(iter(models), "")
    own = study.meta.get("baselines", {}).get(row["baseline"], {})
    values = own if row["baseline"] else {name: row[name] for name in study.meta["space"] if name in row}
    recorded = study.recorded("models", role)
    name, options = str(values.get(role, recorded["name"])), recorded.get("options", {})
    if f"{role}_width" in values:
        options = width_option(float(values[f"{role}_width"]))
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


def onnx_bytes(model: nn.Module, network: Network) -> bytes:
    """The network as ONNX: `images`, (batch, channels, height, width), normalised float32 → `logits`, (batch, classes).

    Raises:
        UserError: a network that torch cannot trace; ours can all be.
    """
    import torch

    check_onnx()
    try:
        program = torch.onnx.export(
            model.eval(),
            (torch.zeros(2, *network.input_shape),),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    except Exception as error:  # torch.export and onnxscript each raise kinds of their own
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"--formats onnx: torch cannot trace {network.name} ({reason}); leave onnx out") from error
    assert program is not None
    proto = program.model_proto
    for key, value in (("mean", network.mean), ("std", network.std), ("dataset", network.dataset)):
        proto.metadata_props.add(key=key, value=str(value))
    return bytes(proto.SerializeToString())


if __name__ == "__main__":
    sys.exit(main())
