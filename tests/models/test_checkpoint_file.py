"""Weights that somebody else trained: every form in which people have them is read, and what is none of these is one
line with the flag and the file, status 2, of which nothing is executed."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from study import run
from study.data import registry as data_registry
from study.errors import UserError
from study.methods.sws.settings import SWSSettings
from study.models import registry
from study.models.checkpoint_file import fit_state, read_state
from study.models.state import tensors_of
from study.pipeline import preflight
from study.pipeline.initial_weights import load_initial_weights
from study.settings import resolve

SHAPE = (1, 8, 8)
NAMED = "--network small"
PRETRAINED = Path("/work/shared/data/pretrained")


class Small(nn.Module):
    """A convolution, batch-norm and a head."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 1, height, width) → (n, classes)."""
        logits: Tensor = self.head(self.bn1(self.conv1(images)).mean(dim=(2, 3)))
        return logits


def trained(seed: int = 1, classes: int = 10) -> dict[str, Tensor]:
    """The state of a network with weights of its own."""
    torch.manual_seed(seed)
    model = Small(classes)
    model.train()(torch.randn(8, 1, 8, 8))
    return {k: v.clone() for k, v in tensors_of(model).items()}


def assert_fits(path: Path, state: dict[str, Tensor], tolerance: float = 0.0) -> None:
    fitted = fit_state(read_state(path), Small(), NAMED)
    assert fitted.keys() == state.keys()
    for name, tensor in fitted.items():
        assert tensor.dtype == state[name].dtype
        torch.testing.assert_close(tensor, state[name], rtol=tolerance, atol=tolerance)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "alone": lambda s: s,
    "ordered": OrderedDict,
    **{f"under {n}": lambda s, n=n: {n: s, "epoch": 3, "best": 0.5}
       for n in ("state_dict", "model", "model_state_dict", "net", "ema", "params")},
    "nested once more": lambda s: {"model": {"state_dict": s}, "optimizer": {"state": {}, "param_groups": []}},
    "beside a stray tensor": lambda s: {"loss": torch.tensor(0.3), "state_dict": s},
    **{f"prefix {p}": lambda s, p=p: prefixed(s, p) for p in ("module.", "_orig_mod.", "model.", "net.")},
    "prefixes of each other": lambda s: {"state_dict": prefixed(s, "module._orig_mod.model.")},
    "an average of networks": lambda s: {**prefixed(s, "module."), "n_averaged": torch.tensor(7)},
    "with arguments": lambda s: {"model": s, "args": argparse.Namespace(lr=0.1, best=np.float64(91.2))},
    "not only tensors": lambda s: {**s, "version": 3},
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_pickled_state_dict_is_read(form: str, legacy: bool, tmp_path: Path) -> None:
    """Under each name, with each prefix, in the zip format and in the one before."""
    state, path = trained(), tmp_path / "net.th"
    torch.save(FORMS[form](state), path, _use_new_zipfile_serialization=not legacy)
    assert_fits(path, state)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_safetensors_file_is_known_by_what_is_in_it(suffix: str, tmp_path: Path) -> None:
    """Whatever it is called."""
    state, path = trained(), tmp_path / "net"
    save_file(prefixed(state, "module."), path)
    path = path.rename(path.with_suffix(suffix))
    assert_fits(path, state)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.half, 1e-3), (torch.bfloat16, 1e-2), (torch.double, 0.0)])
def test_other_precisions_become_float32(kind: torch.dtype, tolerance: float, tmp_path: Path) -> None:
    """Numbers as near as the file has them; the counter of batch-norm stays a whole number."""
    state, path = trained(), tmp_path / "net.pt"
    torch.save({k: v.to(kind) for k, v in state.items()}, path)
    assert_fits(path, state, tolerance)


def test_a_missing_counter_is_zero() -> None:
    """As in files from before there was one."""
    state = {k: v for k, v in trained().items() if not k.endswith("num_batches_tracked")}
    assert fit_state(state, Small(), NAMED)["bn1.num_batches_tracked"] == 0


def test_a_prefix_that_the_network_has_stays() -> None:
    """A network whose own names all begin with `model.` takes a file with these, and one without any but its own."""
    model = nn.Module()
    model.model = Small()  # type: ignore[assignment]
    state = prefixed(trained(), "model.")
    for given in (state, prefixed(state, "module.")):
        assert fit_state(given, model, NAMED).keys() == state.keys()


def test_tied_weights_are_found_under_either_name() -> None:
    """safetensors stores a tensor that has two names under one of them."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
            self.head.weight = self.embed.weight

    weight = torch.randn(7, 3)
    for name in ("embed.weight", "head.weight"):
        fitted = fit_state({name: weight}, Tied(), NAMED)
        assert torch.equal(fitted["embed.weight"], weight) and torch.equal(fitted["head.weight"], weight)


def test_a_network_for_grey_images_takes_the_names_of_torchvision() -> None:
    """Ours has a layer in front of it; files of ours have its names with that."""
    model = registry.build("squeezenet1_1", (1, 32, 32), 10)
    state = tensors_of(model)
    theirs = {name.removeprefix("1."): tensor for name, tensor in state.items()}
    for given in (state, theirs, prefixed(theirs, "module.")):
        fitted = fit_state(given, model, NAMED)
        assert all(torch.equal(fitted[name], state[name]) for name in state) and len(fitted) == len(state)


def test_a_head_of_another_size_names_both_shapes_and_the_flag() -> None:
    """With the flag all but that layer is taken; names of the file that the network does not have may be named, too."""
    state = trained(classes=7)
    with pytest.raises(ValueError, match=r"head.weight \(7×4 in the file, 10×4 in the network\).* add --reinit head$"):
        fit_state(state, Small(), NAMED)
    fitted = fit_state(state, Small(), NAMED, ["head"])
    assert fitted.keys() == {name for name in state if not name.startswith("head.")}
    renamed = {name.replace("head", "fc"): tensor for name, tensor in state.items()}
    with pytest.raises(ValueError, match="add --reinit head,fc$"):
        fit_state(renamed, Small(), NAMED)
    assert fit_state(renamed, Small(), NAMED, ["head", "fc"]).keys() == fitted.keys()


@pytest.mark.parametrize(("name", "file", "count"), [("resnet20", "resnet20-12fca82f.th", 269_722),
                                                     ("resnet32", "resnet32-d509ac18.th", 464_154),
                                                     ("resnet56", "resnet56-4bfd9763.th", 853_018),
                                                     ("resnet110", "resnet110-1d1ed7c2.th", 1_727_962)])  # fmt: skip
def test_published_resnets_for_cifar(name: str, file: str, count: int) -> None:
    """He et al. (2015), sec. 4.2: the parameters of the published files, by their names, and all of them fit."""
    model = registry.build(name, (3, 32, 32), 10)
    assert registry.parameter_count(model) == count
    if not (PRETRAINED / file).is_file():
        pytest.skip("the published files are not here")
    assert fit_state(read_state(PRETRAINED / file), model, NAMED).keys() == tensors_of(model).keys()


def test_the_shortcut_of_a_cifar_resnet() -> None:
    """Option A: where the branch is zero, every other pixel passes, with zeros in as many channels on either side."""
    block = registry.build("resnet20", (3, 32, 32), 10).layer2[0].eval()  # type: ignore[union-attr, index]
    nn.init.zeros_(block.bn2.weight)
    images = torch.rand(2, 16, 6, 6)
    out = block(images)
    assert out.shape == (2, 32, 3, 3) and torch.equal(out[:, 8:24], images[:, :, ::2, ::2])
    assert not out[:, :8].any() and not out[:, 24:].any()


# What is refused.


class Executes:
    """Makes a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def lenet() -> dict[str, Tensor]:
    """The state of the network that the commands below compress."""
    return {k: v.clone() for k, v in tensors_of(registry.build("lenet_300_100", SHAPE, 10)).items()}


def changed(change: Callable[[Tensor], Tensor], name: str = "3.weight") -> Callable[[Path], None]:
    """A file in which one tensor was changed."""

    def write(path: Path) -> None:
        state = lenet()
        torch.save({**state, name: change(state[name])}, path)

    return write


def with_nan(tensor: Tensor) -> Tensor:
    return tensor.masked_fill(torch.arange(tensor.shape[1]) == 3, torch.nan)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.txt", "no weights")


def script(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(path))


def safetensors(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save_file(lenet(), path)
        path.write_bytes(change(path.read_bytes()))

    return write


def looped(path: Path) -> None:
    path.symlink_to(path.name)


def quantised(tensor: Tensor) -> Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "wrong network": (lambda p: torch.save(trained(), p), "missing: 1.weight, 1.bias, 3.weight and 3 more; unexpected: "
                      "conv1.weight, conv1.bias, bn1.weight and "),
    "wrong prefix": (lambda p: torch.save(prefixed(lenet(), "backbone."), p), "unexpected: backbone.1.weight, "),
    "a pickle that would execute": (lambda p: torch.save({"state_dict": Executes()}, p), "holds Python objects ("),
    "a plain pickle that would execute": (lambda p: p.write_bytes(pickle.dumps(Executes())), ""),
    "truncated": (lambda p: p.write_bytes(saved(lenet())[:-2000]), "or it is damaged"),
    "empty": (lambda p: p.touch(), "is empty"),
    "a folder": (lambda p: p.mkdir(), "is no regular file"),
    "a FIFO": (lambda p: os.mkfifo(p), "is no regular file"),
    "a device": (lambda p: p.symlink_to("/dev/zero"), "is no regular file"),
    "a NaN inside": (changed(with_nan), "100 of the 30,000 numbers in 3.weight are NaN or infinite"),
    "infinite as half": (lambda p: torch.save({k: (v * 1e9).half() for k, v in lenet().items()}, p), "infinite"),
    "integer weights": (changed(lambda t: (t * 99).to(torch.int8)), "3.weight has whole numbers (int8)"),
    "complex weights": (changed(lambda t: t.to(torch.complex64)), "3.weight has complex numbers"),
    "sparse weights": (changed(lambda t: t.to_sparse()), "3.weight is sparse or quantised"),
    "quantised weights": (changed(quantised), "3.weight is sparse or quantised"),
    "weights without numbers": (changed(lambda t: t.to("meta")), "3.weight is without numbers"),
    "a tensor that claims to be huge": (changed(lambda t: t[:1, :1].expand(10**6, 10**6)), "1000000×1000000 in the"),
    "a whole network": (lambda p: torch.save(nn.Linear(2, 2), p), "holds Python objects (torch.nn."),
    "numpy arrays": (lambda p: torch.save({k: v.numpy() for k, v in lenet().items()}, p), "holds Python objects (num"),
    "no dictionary": (lambda p: torch.save(list(lenet().values()), p), "holds no state dict"),
    "one tensor": (lambda p: torch.save(torch.zeros(3), p), "holds no state dict"),
    "an empty dictionary": (lambda p: torch.save({"state_dict": {}}, p), "holds no state dict"),
    "a loop of dictionaries": (lambda p: torch.save((d := {}, d.update(model=d))[0], p), "holds no state dict"),
    "an image": (lambda p: Image.new("RGB", (4, 4)).save(p, "png"), "or it is damaged"),
    "text": (lambda p: p.write_text("weights\n"), "or it is damaged"),
    "a zip of something else": (zipped, "or it is damaged"),
    "TorchScript": (script, "is a TorchScript archive"),
    "a head of another size": (lambda p: torch.save({**lenet(), "5.weight": torch.zeros(7, 100)}, p),
                               "5.weight (7×100 in the file, 10×100 in the network)); to start this layer fresh, add "
                               "--reinit 5"),
    "a loop of links": (looped, ""),
    "missing": (lambda p: None, "no such file; give a .safetensors file or a .pt state dict"),
}  # fmt: skip
BAD_SAFETENSORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (safetensors(lambda content: content[:-2000]), "is no .safetensors file, or damaged"),
    "a huge header": (safetensors(lambda content: (2**62).to_bytes(8, "little") + content[8:]), "or damaged"),
    "no JSON": (safetensors(lambda content: content[:8] + b"[" * 100 + content[108:]), "or damaged"),
    "a pickle": (lambda p: torch.save(lenet(), p), "is no .safetensors file, or damaged"),
    "integers": (lambda p: save_file({k: v.to(torch.int8) for k, v in lenet().items()}, p), "has whole numbers (int8)"),
    "empty": (lambda p: p.touch(), "is empty"),
    "no tensors": (lambda p: save_file({}, p), "holds no state dict"),
}


@pytest.fixture(scope="module")
def digits() -> Any:
    return data_registry.load("digits", None)


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize(("suffix", "kind"), [*((".pt", kind) for kind in BAD),
                                              *((".safetensors", kind) for kind in BAD_SAFETENSORS)])  # fmt: skip
def test_a_bad_file_is_one_line(
    suffix: str, kind: str, digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With flag and file; nothing in it is executed."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"weights{suffix}"
    write, words = (BAD if suffix == ".pt" else BAD_SAFETENSORS)[kind]
    write(path)
    settings = resolve(SWSSettings()).changed(checkpoint=path)
    with pytest.raises(UserError) as refused:
        load_initial_weights(settings, digits[0])
    line = str(refused.value)
    assert line.startswith(f"--checkpoint {path}: ") and line.isprintable()
    assert words in line and "weights_only" not in line and len(line) < 700
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("sws --checkpoint evil.pt", "--checkpoint {here}/evil.pt: holds Python objects (posix.system), which are"),
        ("kd --teacher-checkpoint evil.pt", "--teacher-checkpoint {here}/evil.pt: holds Python objects (posix.system)"),
        ("kd_sws --checkpoint evil.pt", "--checkpoint {here}/evil.pt: holds Python objects (posix.system), which are"),
        ("sws --checkpoint .", "--checkpoint .: is a folder; give a file"),
        ("sws --checkpoint loop.pt", "--checkpoint loop.pt: cannot be used ("),
        ("sws --checkpoint https://a.b/net.pt", "--checkpoint https://a.b/net.pt: https:// is not supported"),
        ("sws --checkpoint evil.pt --weights DEFAULT", "--weights DEFAULT: does not go with --checkpoint"),
        ("sws --checkpoint evil.pt --pretrain-epochs 2", "--pretrain-epochs 2: means nothing with --checkpoint"),
        ("sws --finetune-epochs 2", "--finetune-epochs 2: needs --checkpoint FILE or --weights NAME"),
        ("magnitude --finetune-rate 0.1", "--finetune-rate 0.1: needs --checkpoint FILE"),
        ("sws --weights=", "--weights '': names nothing; leave it out, or give a name"),
        ("sws --checkpoint evil.pt --reinit ,", "--reinit ',': names nothing; leave it out, or give a name"),
        ("kd_sws --reinit head", "--reinit head: needs --checkpoint FILE or --weights NAME"),
        ("sws --teacher-checkpoint evil.pt", "--teacher-checkpoint {here}/evil.pt: needs --teacher NETWORK"),
    ],
)
def test_what_a_command_refuses(
    arguments: str,
    line: str,
    digits: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, status 2, and nothing on disk: a file, or flags that do not go together."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preflight.data_registry, "load", lambda *_, **__: digits)
    torch.save({"state_dict": Executes()}, tmp_path / "evil.pt")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    small = " --teacher lenet_300_100 --student lenet_300_100" if "kd" in arguments else ""
    assert run.main((arguments + small).split()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: " + line.format(here=tmp_path.resolve())) and printed.count("\n") == 1
    assert not (tmp_path / "executed").exists() and not list(tmp_path.glob("results/*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """The system's own reason."""
    path = tmp_path / "net.pt"
    torch.save(lenet(), path)
    path.chmod(0)
    with pytest.raises(ValueError, match="^cannot be read \\(Permission denied\\)"):
        read_state(path)
