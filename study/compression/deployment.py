"""Files of a network for other runtimes: small ONNX with a codebook, int8 ONNX, and PyTorch's exported program.

| format           | file, next to float32        | computes in | faster                                     |
|------------------|------------------------------|-------------|--------------------------------------------|
| onnx-codebook    | an eighth (16 values), or a quarter (256) | float32 | no: it is expanded when it is loaded |
| onnx-int8        | a quarter                    | int8        | on processors with int8 dot products        |
| exported-program | the same                     | float32     | no                                         |

Zeros alone make none of them faster: no runtime here has fast sparse kernels. Remove what is zero first, with
`shrinking.shrink`.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from study.errors import UserError, one_line

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "images", "logits"
INSTALL = "pip install 'compression-study[onnx]'"


def onnx_proto(model: nn.Module, input_shape: tuple[int, ...], *, fold_batch_norm: bool = True) -> onnx.ModelProto:
    """A network as ONNX: `images`, (batch, *input_shape), float32 → `logits`, (batch, classes).

    Args:
        fold_batch_norm: False keeps the weights as they are, with batch-norm behind them, so that a tensor with few
            values still has few. onnxruntime folds it when it loads the file.
    Raises:
        UserError: a network that torch cannot trace, or a package that is absent.
    """
    need("onnx", "onnxscript")
    folds = fold_batch_norm or not any(isinstance(m, nn.modules.batchnorm._NormBase) for m in model.modules())
    try:
        program = torch.onnx.export(
            model.eval(),
            (torch.zeros(2, *input_shape),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch"},),
            optimize=folds,
            verbose=False,
        )
    except Exception as error:  # torch.export and onnxscript each raise kinds of their own
        raise UserError(
            f"--formats onnx: torch cannot trace the network ({one_line(error)}); leave onnx out"
        ) from error
    assert program is not None
    if not folds:
        from onnxscript.optimizer import fold_constants

        fold_constants(program.model)  # what torch's own optimisation does besides folding batch-norm
    proto = program.model_proto
    for node in proto.graph.node:  # the lines of code that it comes from, with their paths on this machine
        del node.metadata_props[:]
    del proto.graph.value_info[:]
    return proto


def exported_program_bytes(
    model: nn.Module, input_shape: tuple[int, ...], extra_files: dict[str, str] | None = None
) -> bytes:
    """The network as `torch.export` saves it (`.pt2`), for any batch size; `torch.export.load` reads it.

    Args:
        extra_files: name → text, of files that lie in it.
    Raises:
        UserError: a network that torch cannot export.
    """
    try:
        program = torch.export.export(
            model.eval(), (torch.zeros(2, *input_shape),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
    except Exception as error:  # torch.export raises kinds of its own
        raise UserError(
            f"--formats exported-program: torch cannot export the network ({one_line(error)}); leave it out"
        ) from error
    data = io.BytesIO()
    torch.export.save(program, data, extra_files=extra_files)
    return data.getvalue()


def codebook_onnx(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in a smaller file: a tensor of few values becomes a table and indices into it.

    Two indices share a byte where a tensor has at most 16 values; up to 256 they are bytes, up to 65,536 two bytes. A
    Gather expands them, bit for bit, when a runtime loads the file and computes what is constant. Tensors of more
    values, or too small to gain, stay. The graph uses plain integers, not ONNX's int4 type: that takes opset 21, and
    few runtimes gather from it.

    Args:
        proto: with its weights inside, of opset 18 or later; it is not changed.
    """
    import onnx

    small = onnx.ModelProto()
    small.CopyFrom(proto)
    graph, nodes, others = small.graph, list[onnx.NodeProto](), list[onnx.TensorProto]()
    for tensor in graph.initializer:
        parts = _indexed(tensor)
        if parts is None:
            others.append(tensor)
        else:
            others += parts[0]
            nodes += parts[1]
    body = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(others)
    graph.node.extend([*nodes, *body])
    return small


def _indexed(tensor: onnx.TensorProto) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]] | None:
    """Constants and operations that give a float32 tensor from indices; None where that saves nothing."""
    import onnx
    from onnx import helper, numpy_helper

    if tensor.data_type != onnx.TensorProto.FLOAT:
        return None
    weights, name = numpy_helper.to_array(tensor), tensor.name
    # By their bits, so that -0.0 and NaN are decoded as they were.
    patterns, index = np.unique(weights.reshape(-1).view(np.uint32), return_inverse=True)
    table, index = patterns.view(np.float32), index.reshape(-1)
    if len(table) > 2**16:
        return None
    constants: dict[str, Any] = {"values": table}
    nodes: list[onnx.NodeProto] = []
    if len(table) <= 16:
        low, high = index[: (len(index) + 1) // 2], index[(len(index) + 1) // 2 :]
        packed = low.astype(np.uint8)
        packed[: len(high)] |= high.astype(np.uint8) << 4
        constants |= {"packed": packed, "mask": np.uint8(15), "shift": np.uint8(4), "shape": np.array(weights.shape)}
        nodes += [
            helper.make_node("BitwiseAnd", [f"{name}.packed", f"{name}.mask"], [f"{name}.low"]),
            helper.make_node("BitShift", [f"{name}.packed", f"{name}.shift"], [f"{name}.high"], direction="RIGHT"),
            helper.make_node("Concat", [f"{name}.low", f"{name}.high"], [f"{name}.both"], axis=0),
            helper.make_node("Cast", [f"{name}.both"], [f"{name}.flat"], to=onnx.TensorProto.INT32),
        ]
        if len(index) % 2:
            constants |= {"start": np.array([0]), "end": np.array([len(index)])}
            nodes[-1].output[0] = f"{name}.even"
            nodes.append(helper.make_node("Slice", [f"{name}.even", f"{name}.start", f"{name}.end"], [f"{name}.flat"]))
        nodes.append(helper.make_node("Reshape", [f"{name}.flat", f"{name}.shape"], [f"{name}.index"]))
    else:
        kind = np.uint8 if len(table) <= 256 else np.uint16
        constants["bytes"] = index.astype(kind).reshape(weights.shape)
        nodes.append(helper.make_node("Cast", [f"{name}.bytes"], [f"{name}.index"], to=onnx.TensorProto.INT32))
    nodes.append(helper.make_node("Gather", [f"{name}.values", f"{name}.index"], [name]))
    tensors = [numpy_helper.from_array(np.asarray(value), f"{name}.{part}") for part, value in constants.items()]
    cost = sum(part.ByteSize() for part in tensors) + sum(node.ByteSize() for node in nodes)
    return (tensors, nodes) if cost < tensor.ByteSize() else None


def int8_onnx(proto: onnx.ModelProto, images: Tensor, *, batch: int = 32) -> onnx.ModelProto:
    """The network quantised to int8 by onnxruntime: static, QDQ, one scale for each output channel of the weights.

    Weights are int8, and activations uint8 with the ranges that they have on the images. Outputs change a little:
    score the file with `study.evaluate`.

    Args:
        proto: float32, as `onnx_proto` gives it; it is not changed.
        images: training images as the network takes them, (images, *input_shape); a few hundred are enough.
        batch: how many are passed at a time.
    Raises:
        UserError: a package that is absent, or a network that onnxruntime cannot quantise.
        ValueError: no images.
    """
    need("onnx", "onnxruntime")
    if not len(images):
        raise ValueError("calibration needs at least one image")
    import onnx
    from onnxruntime import quantization  # type: ignore[import-untyped]
    from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[Tensor] = iter(images.split(batch))

        def get_next(self) -> dict[str, Any] | None:
            part = next(self._batches, None)
            return None if part is None else {proto.graph.input[0].name: part.cpu().float().numpy()}

    level = logging.root.level
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, result = (Path(folder) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(proto, source)
        logging.root.setLevel(logging.ERROR)  # it warns of what is meant for its authors
        try:
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantization.quantize_static(prepared, result, Reader(), per_channel=True)
        except Exception as error:  # onnxruntime and its quantiser raise kinds of their own
            raise UserError(
                f"--formats onnx-int8: onnxruntime cannot quantise the network ({one_line(error)}); leave it out"
            ) from error
        finally:
            logging.root.setLevel(level)
        return onnx.load(result)


def need(*packages: str) -> None:
    """Refuse where a package is absent that ONNX files need.

    Raises:
        UserError: with what to install.
    """
    import importlib.util

    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(f"--formats: ONNX needs {' and '.join(absent)}; {INSTALL}, or leave onnx out")
