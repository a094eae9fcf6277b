"""The files of a network that `study.export` writes, and `study.evaluate` reads: formats, names, and what is in them.

Each says by itself what feeds it: data set, mean and standard deviation are in the metadata of ONNX and safetensors,
and in an extra file of an exported program. The ONNX formats and the exported program hold the network after exact
shrinking; a compressed file and safetensors hold it as it was built.
"""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from study.compression import compressed_file, deployment, file_checks
from study.compression.compressed_file import Decoded, Network, build, check_finite
from study.compression.latency import Source
from study.errors import UserError, one_line
from study.models.state import load_tensors

SUFFIXES = {
    "codebook": ".codebook",
    "safetensors": ".safetensors",
    "onnx": ".onnx",
    "onnx-codebook": ".codebook.onnx",
    "onnx-int8": ".int8.onnx",
    "exported-program": ".pt2",
}
"""Format → what the names of its files end with."""
DESCRIPTION = "network"
"""Key of the metadata: what builds the network and feeds it, as JSON, in the order of `Network`."""
_EXTRA_FILE = "network.json"
_MOST = 2**20  # bytes of a description


@dataclass(frozen=True)
class OpenedFile:
    """A network from a file, ready to be run.

    Attributes:
        network: what feeds it; its name and options are those before it was shrunk.
        model: gives logits for normalised images.
        runtime: what runs it.
        source: as `latency.measure` takes it.
        decoded: of a compressed file, all of it.
    """

    network: Network
    model: nn.Module
    runtime: str
    source: Source
    decoded: Decoded | None = None


def metadata_of(network: Network) -> dict[str, str]:
    """What a file says of its network, as texts."""
    plain = {key: str(getattr(network, key)) for key in ("mean", "std", "dataset")}
    return {**plain, DESCRIPTION: json.dumps(astuple(network))}


def onnx_bytes(format_name: str, shrunk: nn.Module, network: Network, images: Callable[[], Tensor]) -> bytes:
    """An ONNX file: `images`, (batch, *input_shape), normalised float32 → `logits`, (batch, classes).

    Args:
        format_name: one of onnx, onnx-codebook and onnx-int8.
        shrunk: the network, after exact shrinking or as it is.
        images: gives training images as the network takes them; only onnx-int8 asks for them.
    Raises:
        UserError: a network that torch cannot trace, or onnxruntime not quantise, or a package that is absent.
    """
    proto = deployment.onnx_proto(shrunk, network.input_shape, fold_batch_norm=format_name != "onnx-codebook")
    if format_name == "onnx-codebook":
        proto = deployment.codebook_onnx(proto)
    elif format_name == "onnx-int8":
        proto = deployment.int8_onnx(proto, images())
    del proto.metadata_props[:]
    for key, value in metadata_of(network).items():
        proto.metadata_props.add(key=key, value=value)
    return bytes(proto.SerializeToString())


def program_bytes(shrunk: nn.Module, network: Network) -> bytes:
    """An exported program (`.pt2`), with what feeds it."""
    extra = {_EXTRA_FILE: json.dumps(astuple(network))}
    return deployment.exported_program_bytes(shrunk, network.input_shape, extra)


def open_file(path: Path, *, custom: str | None = None, max_parameters: int | None = None) -> OpenedFile:
    """A network from a file of any format of `SUFFIXES`.

    Args:
        custom: name of its network, where reading the file runs code: that of a `module:function`, or of a `.pt2`.
        max_parameters: of the network.
    Raises:
        UserError: no such file, one that is damaged, or that says too little; see `compressed_file.read`.
    """
    if path.suffix == ".onnx":
        return _open_onnx(path)
    if path.suffix == ".pt2":
        return _open_program(path, custom)
    if path.suffix == ".safetensors":
        return _open_safetensors(path, custom, max_parameters)
    decoded = compressed_file.read(path, custom=custom, max_parameters=max_parameters)
    return OpenedFile(decoded.network, decoded.model, "PyTorch", decoded.model, decoded)


def _open_safetensors(path: Path, custom: str | None, max_parameters: int | None) -> OpenedFile:
    from study.artifacts.cache import read_arrays, read_metadata
    from study.data.splits import as_tensor

    arrays, metadata = read_arrays(path), read_metadata(path)
    if DESCRIPTION not in metadata:
        raise UserError(f"{path}: does not say of which network its weights are; give a file that study.export wrote, "
                        f"or the {compressed_file.SUFFIX} file")  # fmt: skip
    network = _described(path, metadata[DESCRIPTION])
    model = build(network, custom, str(path), max_parameters)
    try:
        load_tensors(model, {name: as_tensor(array) for name, array in arrays.items()})
    except RuntimeError as error:
        raise UserError(f"{path}: not weights of the network {network.name} that it names; export it again") from error
    check_finite(model, str(path))
    return OpenedFile(network, model.eval(), "PyTorch", model)


def _open_onnx(path: Path) -> OpenedFile:
    _require_file(path)
    model = _OnnxNetwork(path)
    metadata = model.metadata
    if DESCRIPTION in metadata:
        network = _described(path, metadata[DESCRIPTION])
    else:
        network = _from_parts(path, model, metadata)
    return OpenedFile(network, model, "onnxruntime", path)


def _from_parts(path: Path, model: _OnnxNetwork, metadata: Mapping[str, str]) -> Network:
    """What feeds a network whose file has its mean, standard deviation and data set alone, as earlier ones had."""
    try:
        mean, std = (tuple(ast.literal_eval(metadata[key])) for key in ("mean", "std"))
        return Network(*file_checks.check_entries("an ONNX network", {}, model.shape, model.classes, mean, std,
                                                  metadata["dataset"]))  # fmt: skip
    except (KeyError, ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else one_line(error)
        raise UserError(f"{path}: its metadata do not say what feeds it ({what}); give a file that study.export "
                        "wrote") from error  # fmt: skip


def _open_program(path: Path, custom: str | None) -> OpenedFile:
    """An exported program, which can run any code when it is loaded, so its name must be given."""
    _require_file(path)
    network = _described(path, _extra_file(path))
    if custom != network.name:
        raise UserError(f"{path}: loading a .pt2 file runs what is in it. If you trust it, add --network "
                        f"{network.name}; the .onnx file needs no trust")  # fmt: skip
    try:
        program = torch.export.load(path).module()
    except Exception as error:  # torch raises many kinds of what is cut or changed
        raise UserError(f"{path}: no exported program that torch can load ({one_line(error)})") from error
    model = _Program(program)
    return OpenedFile(network, model, "PyTorch", model)


def _extra_file(path: Path) -> str:
    """The description in an exported program, which is a zip archive, read without running anything of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [i for i in archive.infolist() if i.filename.endswith(f"/extra/{_EXTRA_FILE}")]
            if len(names) == 1 and names[0].file_size <= _MOST:
                return archive.read(names[0]).decode()
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, EOFError) as error:
        raise UserError(f"{path}: no exported program ({one_line(error)})") from error
    raise UserError(f"{path}: does not say what feeds it; give a .pt2 file that study.export wrote")


def _described(path: Path, text: str) -> Network:
    try:
        if len(text) > _MOST:
            raise ValueError("too long")
        return Network(*file_checks.header_entries(text.encode()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: its description of the network is damaged ({one_line(error)}); export it again"
                        ) from error  # fmt: skip


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give one that study.export wrote")


class _Program(nn.Module):
    """An exported program, which refuses to be told that it is evaluated: it always is."""

    def __init__(self, program: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._run = (program,)  # no part of this module, so that nothing asks its mode

    def forward(self, images: Tensor) -> Tensor:
        return self._run[0](images)


class _OnnxNetwork(nn.Module):
    """An ONNX file that onnxruntime runs, as a module.

    Raises:
        UserError: onnxruntime is absent, does not load the file, or it takes or gives something else.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        deployment.need("onnxruntime")
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises kinds of its own
            raise UserError(f"{path}: onnxruntime does not load it ({one_line(error)[:200]})") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) < 2:
            raise UserError(f"{path}: takes other inputs than one batch of float32 images")
        self._input, self.shape = inputs[0].name, inputs[0].shape[1:]
        self.classes = outputs[0].shape[-1] if outputs and outputs[0].shape else 0
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def forward(self, images: Tensor) -> Tensor:
        logits: Any = self._session.run(None, {self._input: images.contiguous().numpy()})[0]
        return torch.from_numpy(logits)
