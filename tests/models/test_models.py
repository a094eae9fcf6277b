from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from study.errors import UserError
from study.models import custom, published_weights, registry
from study.models.registry import GreyToColour
from study.models.zoo import Shape
from study.settings import WITH_WIDTH

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
_LAYERS = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.ReLU, nn.Linear, *_POOLS)


def layer_count(model: nn.Module) -> int:
    """Number of convolution, batch-norm, ReLU, pooling and linear modules; one used twice counts once."""
    return sum(isinstance(module, _LAYERS) for module in model.modules())


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


@pytest.mark.parametrize(
    ("name", "shape", "parameters", "layers"),
    [
        ("vgg13", (3, 32, 32), 9_416_010, 36),
        ("minivgg", (3, 32, 32), 1_575_690, 21),
        ("lenet_300_100", (1, 28, 28), 266_610, 5),
        ("lenet5", (1, 28, 28), 431_080, 7),
    ],
)
def test_published_sizes(name: str, shape: Shape, parameters: int, layers: int) -> None:
    """The networks of the literature have exactly their published numbers of parameters and layers."""
    model = registry.build(name, shape, 10)
    assert registry.parameter_count(model) == parameters
    assert layer_count(model) == layers


@pytest.mark.parametrize(("name", "convolutions"), [("vgg11", 8), ("vgg13", 10), ("vgg16", 13), ("vgg19", 16)])
def test_vgg_depths(name: str, convolutions: int) -> None:
    """VGG-N has N weight layers in the paper, three of them fully connected; here one is."""
    model = registry.build(name, (3, 32, 32), 10, width=0.1)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == convolutions == int(name[3:]) - 3


# Published with torchvision, of ImageNet's 224×224 images and 1000 classes.
VGG_PARAMETERS = {"vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240}


@pytest.mark.parametrize("name", VGG_PARAMETERS)
def test_vgg_convolutions(name: str) -> None:
    """Convolutions have the published number of parameters, and the filters and pools that torchvision's have."""
    ours = registry.build(name, (3, 32, 32), 10)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name)
    published_head = (512 * 49 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    convolutions = [m for m in ours.modules() if isinstance(m, nn.Conv2d)]
    assert sum(registry.parameter_count(m) for m in convolutions) == VGG_PARAMETERS[name] - published_head

    def plan(model: nn.Module) -> list[object]:
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
        return [m.out_channels if isinstance(m, nn.Conv2d) else "pool" for m in layers]

    assert plan(ours) == plan(theirs)


@pytest.mark.parametrize("name", registry.NAMES)
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (4, 100)])
def test_any_shape_and_class_count(name: str, channels: int, classes: int) -> None:
    """Each of our networks takes any channels and sides from its minimum upwards, and gives one logit a class."""
    least = registry.minimum_size(name)
    for height, width in ((least, least), (least + 1, 2 * least + 3)):
        options = {"width": 0.05} if name in WITH_WIDTH else {}
        model = registry.build(name, (channels, height, width), classes, **options)
        assert model.training
        assert model(torch.zeros(2, channels, height, width)).shape == (2, classes)


def test_minimum_sizes() -> None:
    """VGG kinds halve their images five times, or three; LeNet-5 needs 16 pixels; torchvision states its own minima. A
    vision transformer's patches divide 32 pixels, or a little more; published weights ask for their own images."""
    names = (
        "vgg11",
        "vgg19",
        "vgg8",
        "vgg13_3pools",
        "mobilenetv2",
        "minivgg",
        "lenet5",
        "lenet_300_100",
        "alexnet",
        "torchvision:vgg13",
        "my.module:network",
        "vit_b_16",
        "vit_l_32",
        "vit_h_14",
    )
    assert [registry.minimum_size(name) for name in names] == [*(32, 32, 8, 8, 1, 32, 16, 1, 63, 32, 1, 32, 32, 42)]
    assert published_weights.image_size("vit_b_16", "DEFAULT") == 224
    assert published_weights.image_size("vit_b_16", "imagenet1k_swag_e2e_v1") == 384


@pytest.mark.parametrize(("shape", "fits"), [((3, 28, 28), 32), ((3, 100, 100), 96), ((3, 64, 80), 64)])
def test_a_transformer_says_which_images_its_patches_divide(shape: Shape, fits: int) -> None:
    """One line, with a size that is near; the network is built for images that fit."""
    with pytest.raises(UserError) as error:
        registry.build("vit_b_16", shape, 10)
    assert f"{shape[1]}×{shape[2]}" in one_line(error) and f"--image-size {fits}" in one_line(error)
    assert registry.takes_one_size("torchvision:vit_b_16") and not registry.takes_one_size("resnet18")


@pytest.mark.parametrize("name", [name for name in registry.NAMES if registry.minimum_size(name) > 1])
def test_input_too_small(name: str) -> None:
    """One pixel below its minimum a network refuses, and says what it needs."""
    least = registry.minimum_size(name)
    with pytest.raises(UserError) as error:
        registry.build(name, (1, least - 1, least), 10)
    assert f"{least}×{least}" in one_line(error)


def test_larger_images_are_pooled() -> None:
    """Above 32×32 one average pool more keeps the classifier's size, so parameters do not depend on the image."""
    small, large = (registry.build("minivgg", (3, side, side), 10) for side in (32, 64))
    assert registry.parameter_count(small) == registry.parameter_count(large)
    assert layer_count(large) == layer_count(small) + 1


def test_width_scales_channels() -> None:
    """Width multiplies every channel count, down to four channels at least."""

    def channels(width: float) -> list[int]:
        model = registry.build("minivgg", (1, 32, 32), 10, width=width)
        return [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]

    assert channels(1) == [32, 64, 128, 256, 512]
    assert channels(0.25) == [8, 16, 32, 64, 128]
    assert channels(0.01) == [4, 4, 4, 4, 5]


def test_seed_repeats_weights() -> None:
    """The caller's seed decides every weight, and the check of the shapes takes no number from the sequence."""

    def weights(name: str) -> list[torch.Tensor]:
        torch.manual_seed(3)
        model = registry.build(name, (1, 32, 32), 10)
        return [*model.state_dict().values(), torch.rand(3)]

    for name in ("minivgg", "lenet5"):
        first, again = weights(name), weights(name)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_fresh_batch_norm() -> None:
    """The check of the shapes leaves batch-norm's running statistics as they start."""
    model = registry.build("minivgg", (1, 32, 32), 10)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.num_batches_tracked == 0 and m.running_mean is not None and not m.running_mean.any() for m in norms)


def test_vgg_keeps_signal() -> None:
    """Kaiming's initialisation: each convolution's weights have variance 2 / fan-out, and its biases are zero."""
    torch.manual_seed(0)
    convolutions = [m for m in registry.build("vgg13", (3, 32, 32), 10).modules() if isinstance(m, nn.Conv2d)]
    for layer in convolutions[1:]:
        assert layer.weight.var().item() == pytest.approx(2 / (9 * layer.out_channels), rel=0.05)
        assert layer.bias is not None and not layer.bias.any()


def test_torchvision_by_name() -> None:
    """torchvision's networks come by name; `torchvision:` tells its VGG-13 from ours; grey images are repeated."""
    assert registry.parameter_count(registry.build("squeezenet1_1", (3, 32, 32), 10)) == 727_626
    grey = registry.build("torchvision:resnet18", (1, 32, 32), 7)
    assert isinstance(grey, nn.Sequential) and isinstance(grey[0], GreyToColour)
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(grey(images), grey[1](images.repeat(1, 3, 1, 1)))
    with pytest.raises(UserError, match="1 or 3 channels"):
        registry.build("resnet18", (4, 32, 32), 7)


def test_torchvision_gives_one_output_in_training() -> None:
    """A network with auxiliary outputs is built without them, so that the training loop sees logits alone."""
    model = registry.build("googlenet", (3, 32, 32), 10)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_networks_for_test.py").write_text(
        "from torch import nn\n"
        "def linear(input_shape, classes, scale=1):\n"
        "    c, h, w = input_shape\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, classes * scale))\n"
        "def words(input_shape, classes): return 'a network'\n"
        "def broken(input_shape, classes): raise RuntimeError('first\\nsecond')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    return "my_networks_for_test"


def test_users_own(user_module: str) -> None:
    """`module:function` finds a file in the current folder and passes shape, classes and options."""
    model = registry.build(f"{user_module}:linear", (3, 4, 5), 6, scale=1)
    assert registry.parameter_count(model) == 60 * 6 + 6


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        ("words", {}, "returned str, not a torch.nn.Module"),
        ("broken", {}, "RuntimeError: first second"),
        ("number", {}, "no function 'number'"),
        ("missing", {}, "no function 'missing'"),
        ("linear", {"scale": 2}, "logits of shape (2, 6) are needed"),
        ("linear", {"colour": 2}, "colour"),
    ],
)
def test_users_own_wrong(user_module: str, function: str, options: dict, said: str) -> None:
    """Whatever is wrong with a user's function is said in one line that names it."""
    with pytest.raises(UserError) as error:
        registry.build(f"{user_module}:{function}", (3, 4, 5), 6, **options)
    assert said in one_line(error) and f"{user_module}:{function}" in one_line(error)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import argparse\np = argparse.ArgumentParser()\np.add_argument('--epochs', required=True)\np.parse_args([])",
         "ended the program (exit status 2; it printed: "),
        ("import sys\nsys.exit()", "ended the program (exit status None). To fix it: "),
        ("exit(3)", "ended the program (exit status 3)"),
        ("class Mine(KeyboardInterrupt): pass\nraise Mine('x')", "failed (Mine: x)"),
        ("raise GeneratorExit", "failed (GeneratorExit:)"),
        ("def build(input_shape, classes): raise SystemExit('no GPU')", "ended the program (exit status no GPU)"),
    ],
)  # fmt: skip
def test_users_code_that_ends_the_program_is_named(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that reads arguments or exits where a network was expected: one line, and nothing of what it prints."""
    name = f"{tmp_path.name.replace('-', '_')}:build"
    monkeypatch.chdir(tmp_path)
    Path(name.replace(":build", ".py")).write_text(code)
    with pytest.raises(UserError) as error:
        registry.build(name, (3, 4, 5), 6)
    assert said in str(error.value) and f"network {name}: " in str(error.value)
    assert "\n" not in str(error.value) and capsys.readouterr() == ("", "")
    if "argparse" in code:
        assert "the following arguments are required: --epochs" in str(error.value)


def test_ctrl_c_in_users_code_is_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no error of the network."""
    (tmp_path / "interrupted_network.py").write_text("raise KeyboardInterrupt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        registry.build("interrupted_network:build", (3, 4, 5), 6)


def test_what_users_code_prints_stays_off_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Megabytes of it too, on import or when it is called."""
    (tmp_path / "loud_network.py").write_text(
        "from torch import nn\n"
        "print('x' * 10**7)\n"
        "def build(input_shape, classes):\n"
        "    print('y\\n' * 10**6)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(60, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    registry.build("loud_network:build", (3, 4, 5), 6)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("vgg14", {}, "did you mean vgg1"),
        ("zzz", {}, "lenet_300_100"),
        ("torchvision:lenet5", {}, "unknown"),
        ("fasterrcnn_resnet50_fpn", {}, "unknown"),
        ("no_such_module_here:f", {}, "No module named 'no_such_module_here'"),
        (":f", {}, "ValueError"),
        ("lenet5", {"width": 2}, "unknown option 'width'"),
        ("vgg13", {"depth": 2}, "unknown option 'depth'; it has width"),
        ("vgg13", {"width": 0}, "width 0"),
        ("vgg13", {"width": "wide"}, "width 'wide'"),
        ("resnet18", {"depth": 2}, "depth"),
        ("vit_b_16", {"patch_size": 33}, "patch_size"),
    ],
)
def test_wrong_name_or_option(name: str, options: dict, said: str) -> None:
    """Unknown names, unknown options and shapes that do not fit end in one line before any training."""
    with pytest.raises(UserError) as error:
        registry.build(name, (3, 32, 32), 10, **options)
    assert said in one_line(error) and name in one_line(error)


def test_code_that_lies_in_no_file_is_not_known() -> None:
    """A network of a module without a file has no identity, so that nothing of it is kept and found again."""

    class Nowhere(nn.Linear):
        pass

    Nowhere.__module__ = "nowhere"
    assert custom.identity("study.models.registry:build", nn.Linear(2, 2))
    assert (
        custom.identity("study.models.registry:build", Nowhere(2, 2))
        == custom.identity("nowhere:f", nn.Linear(2, 2))
        == ""
    )
