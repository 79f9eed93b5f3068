"""Heat maps against captum's, by hand, and what they must leave behind: nothing."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from defender.explain import find_layer, gradcam, gradcams, overlay, seen_region
from defender.models.classifiers import Normalised, shapes_cnn
from defender.models.scaled import Scaled
from defender.scaling import Pipeline
from tasks.models import load_model
from tasks.query_models import QueryModel
from tasks.subject_specs import ModelSpec


def images(n: int = 3, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    coarse = torch.rand(n, channels, 8, 8, generator=generator)
    return functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def shipped(name: str) -> nn.Module:
    return load_model(ModelSpec(name=name), Path("."), torch.device("cpu"))


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return models.resnet18(weights=None).eval()


def small() -> nn.Module:
    torch.manual_seed(0)
    return Normalised(shapes_cnn(), (0.5,), (0.25,)).eval().requires_grad_(False)


class Linear(nn.Module):
    """A stage that doubles, then weighted means of its channels: its map is known by hand."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.stage = nn.Conv2d(2, 2, 1, bias=False)
        self.stage.weight.data = 2 * torch.eye(2)[:, :, None, None]
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(x).mean(dim=(2, 3)) @ self.weight.T


def hooks(model: nn.Module) -> int:
    return sum(
        len(part._forward_hooks) + len(part._backward_hooks) + len(part._forward_pre_hooks)
        for part in model.modules()
    )


def captums(model: nn.Module, layer: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    coarse = captum.LayerGradCam(model, layer).attribute(x, classes, relu_attributions=True)
    maps = captum.LayerAttribution.interpolate(coarse, x.shape[2:], interpolate_mode="bilinear")
    peak = maps.amax(dim=(2, 3), keepdim=True)
    return (maps / torch.where(peak > 0, peak, 1.0))[:, 0].detach()


@pytest.mark.parametrize(
    ("make", "layer", "shape"),
    [
        (resnet, "layer4", (3, 3, 96, 80)),
        (lambda: shipped("cifar-resnet"), "network.stages", (16, 3, 32, 32)),
        (lambda: shipped("xray-cnn"), "network.stages", (4, 1, 224, 224)),
    ],
    ids=["resnet18", "cifar-resnet", "xray-cnn"],
)
def test_maps_are_those_of_captum(
    make: Callable[[], nn.Module], layer: str, shape: tuple[int, int, int, int]
) -> None:
    model, x = make(), images(*shape)
    assert find_layer(model, x) == layer
    logits = model(x).detach()
    pairs = [logits.argmax(1), logits.argmin(1)]
    maps = gradcams(model, x, pairs)
    assert maps.dtype == torch.float32
    assert maps.shape == (2, shape[0], *shape[2:])
    for found, classes in zip(maps, pairs, strict=True):
        expected = captums(model, model.get_submodule(layer), x, classes)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    # so that not only zeros were compared
    assert (maps[0].amax(dim=(1, 2)) == 1).all()


def test_an_inner_layer_followed_by_writing_in_place_is_captums() -> None:
    # torchvision adds the shortcut and takes the positive part in place
    model, x, classes = resnet(), images(2, 3, 64, 64), torch.tensor([3, 7])
    for layer in ("layer3", "layer4.0.bn2", "layer4.1.conv1"):
        expected = captums(model, model.get_submodule(layer), x, classes)
        torch.testing.assert_close(gradcam(model, x, classes, layer), expected, rtol=0, atol=1e-5)


def test_by_hand() -> None:
    # y_0 = 2 mean x_0 - mean x_1, so alpha = (1, -1/2) / places, and the map is x_0 - x_1 / 2
    model = Linear(torch.tensor([[1.0, -0.5], [-1.0, -1.0]])).eval()
    x = torch.tensor([[0.2, 0.8], [0.4, 0.0]]), torch.tensor([[0.4, 0.0], [1.0, 0.6]])
    both = torch.stack(x).expand(2, 2, 2, 2)
    found = gradcam(model, both, torch.tensor([0, 1]))
    assert found[0].flatten().tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0])
    # nothing speaks for the other class
    assert torch.equal(found[1], torch.zeros(2, 2))


def test_the_predicted_class_is_none() -> None:
    model, x = small(), images(5)
    predicted, labels = model(x).argmax(1), torch.arange(5)
    assert torch.equal(gradcam(model, x, None), gradcam(model, x, predicted))
    expected = torch.stack([gradcam(model, x, predicted), gradcam(model, x, labels)])
    assert torch.equal(gradcams(model, x, [None, labels]), expected)
    assert not torch.equal(expected[0], expected[1])


def test_several_classes_take_one_pass_forwards() -> None:
    model, x = small(), images(4)
    find_layer(model, x)
    calls: list[int] = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    gradcams(model, x, [torch.full((4,), label) for label in range(10)])
    gradcam(model, x, None)
    handle.remove()
    assert len(calls) == 2


def test_images_of_a_batch_do_not_mix() -> None:
    model, x = small(), images(6)
    classes = torch.arange(6)
    single = torch.cat([gradcam(model, x[i : i + 1], classes[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(gradcam(model, x, classes), single, rtol=0, atol=1e-5)


FAMILIES = {
    "alexnet": "features",
    "convnext_tiny": "features",
    "densenet121": "features",
    "efficientnet_b0": "features",
    "mobilenet_v2": "features",
    "mobilenet_v3_small": "features",
    "mnasnet0_5": "layers",
    "regnet_y_400mf": "trunk_output",
    "resnext50_32x4d": "layer4",
    "shufflenet_v2_x0_5": "conv5",
    "squeezenet1_1": "classifier.2",
    "swin_t": "permute",
    "vgg11": "features",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_last_stage_of_torchvision_classifiers(name: str) -> None:
    torch.manual_seed(0)
    model = models.get_model(name, weights=None).eval()
    x = images(1, 3, 96, 96)
    assert find_layer(model, x) == FAMILIES[name]
    found = gradcam(model, x, torch.tensor([5]))
    expected = captums(model, model.get_submodule(FAMILIES[name]), x, torch.tensor([5]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_stage_of_one_place_is_none() -> None:
    # 12 pixels are 3 x 3 before the last stage pools them to 1 x 1
    model = small()
    assert find_layer(model, images(1, 3, 32, 32)) == "network.stages"
    assert find_layer(model, images(1, 3, 12, 12)) == "network.stages.2.widen"
    assert find_layer(model, images(1, 3, 32, 32)) == "network.stages"


def test_wrappers_are_seen_through() -> None:
    network = shapes_cnn().eval().requires_grad_(False)
    bare, inside = network, Normalised(network, (0.0,), (1.0,)).eval()
    scaled = Scaled(inside, Pipeline("pillow", "linear", target=(32, 32))).eval()
    x, classes = images(2), torch.tensor([1, 4])
    expected = gradcam(bare, x, classes)
    for model in (inside, scaled):
        assert torch.equal(gradcam(model, x, classes), expected)
        assert torch.equal(gradcam(model, x, classes, "stages"), expected)
    large = images(2, 3, 80, 96)
    assert gradcam(scaled, large, classes).shape == (2, 80, 96)


def test_a_token_grid_is_a_map_without_its_class_token() -> None:
    torch.manual_seed(0)
    model = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    x, classes = images(3), torch.tensor([0, 1, 2])
    with pytest.raises(TypeError, match="got VisionTransformer, which goes on with tokens"):
        gradcam(model, x, classes)
    layer = model.get_submodule("encoder.layers.encoder_layer_1.ln_1")
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    scores = model(x).gather(1, classes[:, None]).sum()
    handle.remove()
    (slope,) = torch.autograd.grad(scores, seen[0])
    alpha = slope[:, 1:].mean(dim=1, keepdim=True)
    coarse = torch.relu((alpha * seen[0][:, 1:]).sum(2)).view(3, 1, 4, 4).detach()
    maps = functional.interpolate(coarse, (32, 32), mode="bilinear")[:, 0]
    peak = maps.amax(dim=(1, 2), keepdim=True)
    assert (peak > 0).any()
    found = gradcam(model, x, classes, "encoder.layers.encoder_layer_1.ln_1")
    torch.testing.assert_close(found, maps / torch.where(peak > 0, peak, 1.0), rtol=0, atol=1e-5)


def test_a_cropping_network_is_shown_where_it_looks() -> None:
    model, size = shipped("xray-cnn"), (64, 96)
    x, classes = images(3, 1, *size), torch.tensor([0, 1, 1])
    region = seen_region(model, size)
    assert region == (8, 12, 48, 72)
    found = gradcam(model, x, classes, region=region)
    assert (found.amax(dim=(1, 2)) == 1).any()
    inside = torch.zeros(size, dtype=torch.bool)
    inside[8:56, 12:84] = True
    assert not found[:, ~inside].any()
    coarse = functional.interpolate(gradcam(model, x, classes)[:, None], (6, 9), mode="area")
    again = functional.interpolate(found[:, None, 8:56, 12:84], (6, 9), mode="area")
    torch.testing.assert_close(again, coarse, rtol=0, atol=0.02)
    assert seen_region(small(), size) == (0, 0, *size)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_maps_are_made_in_any_mode(mode: Callable[[], torch.autograd.grad_mode.no_grad]) -> None:
    model, x, classes = small(), images(2), torch.tensor([1, 2])
    expected = gradcam(model, x, classes)
    with mode():
        # tensors of inference mode, which autograd does not take
        found = gradcam(model, x.clone(), classes.clone())
        assert not torch.is_grad_enabled()
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_nothing_is_left_behind() -> None:
    model, x, classes = small().requires_grad_(True), images(2).requires_grad_(True), None
    before, pixels = hooks(model), x.detach().clone()
    gradcams(model, x, [classes, torch.tensor([1, 2])])
    assert hooks(model) == before
    assert x.grad is None
    assert torch.equal(x, pixels)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_hooks_are_gone_after_an_error() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("on purpose")

    model = nn.Sequential(shapes_cnn().stem, nn.ReLU(), Failing()).eval()
    for layer in ("0", None):
        with pytest.raises(RuntimeError, match="on purpose"):
            gradcam(model, images(), torch.zeros(3, dtype=torch.int64), layer)
        assert hooks(model) == 0


def test_another_thread_may_ask_the_model_meanwhile() -> None:
    model, x, classes = small(), images(2), torch.tensor([1, 2])
    expected, answers, plain = gradcam(model, x, classes), [], model(x)

    def ask(*_: object) -> None:
        thread = threading.Thread(target=lambda: answers.append(model(1 - x)))
        thread.start()
        thread.join()

    handle = model.network.head.register_forward_hook(
        lambda *_: ask() if threading.current_thread() is threading.main_thread() else None
    )
    found = gradcam(model, x, classes)
    handle.remove()
    assert torch.equal(found, expected)
    assert not answers[0].requires_grad
    assert torch.equal(model(x), plain)


def test_models_without_gradient_or_stage_are_named() -> None:
    x, classes = images(), torch.zeros(3, dtype=torch.int64)
    query = QueryModel(lambda pixels: pixels.mean(dim=(2, 3)), "oracle", 3).eval()
    with pytest.raises(TypeError, match="got oracle@"):
        gradcam(query, x, classes)
    with pytest.raises(TypeError, match="got Sequential"):
        gradcam(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)).eval(), x, classes)
    with pytest.raises(TypeError, match="expected a torch module, got <function"):
        gradcam(lambda pixels: pixels, x, classes)  # type: ignore[arg-type]

    class Detached(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features.detach().mean(dim=(2, 3))

    stem = nn.Conv2d(3, 4, 3)
    with pytest.raises(TypeError, match="expected a model with a gradient, got Sequential"):
        gradcam(nn.Sequential(stem, Detached()).eval(), x, classes)


def test_what_does_not_fit_is_refused() -> None:
    model, x, classes = small(), images(), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"classes: expected int64 \(3,\)"):
        gradcam(model, x, classes[:2])
    with pytest.raises(ValueError, match=r"classes: expected int64 \(3,\), got torch.float32"):
        gradcam(model, x, classes.float())
    with pytest.raises(ValueError, match="classes: expected below 10, got 10"):
        gradcam(model, x, classes + 10)
    with pytest.raises(ValueError, match="classes: expected >= 0, got -1"):
        gradcam(model, x, classes - 1)
    with pytest.raises(ValueError, match="images: expected"):
        gradcam(model, x[0], classes)
    with pytest.raises(ValueError, match="layer: expected a module of model, got 'layer4'"):
        gradcam(model, x, classes, "layer4")
    with pytest.raises(ValueError, match=r"layer: expected one of network\.stages\.0\.widen, "):
        gradcam(model, x, classes, "widen")
    with pytest.raises(ValueError, match=r"layer: expected a module that puts out .* 'head'"):
        gradcam(model, x, classes, "head")
    with pytest.raises(ValueError, match="region: expected top, left, height, width inside 32"):
        gradcam(model, x, classes, region=(0, 0, 33, 32))
    with pytest.raises(ValueError, match="in evaluation mode, got training mode"):
        gradcam(small().train(), x, classes)


def test_a_map_that_is_not_finite_is_an_error() -> None:
    x = images()
    x[1, 0, 3, 3] = torch.nan
    with pytest.raises(FloatingPointError, match="expected finite"):
        gradcam(small(), x, torch.zeros(3, dtype=torch.int64))


def test_no_images_and_no_classes() -> None:
    x = images()
    assert gradcam(small(), x[:0], torch.zeros(0, dtype=torch.int64)).shape == (0, 32, 32)
    assert gradcams(small(), x, []).shape == (0, 3, 32, 32)


def test_a_model_that_was_explained_can_go() -> None:
    model = small()
    gradcam(model, images(), None)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_images() -> None:
    psutil = pytest.importorskip("psutil", reason="psutil is not installed")
    process = psutil.Process()
    model, x = small(), images(100)
    before = hooks(model)
    labels = torch.arange(100) % 10
    resident: list[int] = []
    for _ in range(100):
        maps = gradcams(model, x, [None, labels])
        assert maps.shape == (2, 100, 32, 32)
        assert hooks(model) == before
        resident.append(process.memory_info().rss)
    # the maps of a batch alone are 0.8 MB: kept, they would add up to 70 MB
    assert max(resident[10:]) - resident[9] < 8 << 20


def test_overlay_by_hand() -> None:
    x = torch.zeros(2, 3, 1, 3)
    x[:, 0] = 0.6
    maps = torch.tensor([[[0.0, 0.5, 1.0]]]).expand(2, 1, 3)
    found = overlay(x, maps, strength=1.0)
    assert found.shape == (2, 3, 1, 3)
    assert found.dtype == torch.uint8
    # the image in grey, 0.2 of 255; the top of the colour map, a pale yellow (252, 255, 164)
    assert found[0, :, 0, 0].tolist() == [51, 51, 51]
    assert found[0, :, 0, 2].tolist() == [252, 255, 164]
    assert torch.equal(overlay(x[0], maps[0], strength=1.0), found[0])
    assert torch.equal(overlay(x[:, :1] / 3, maps, strength=1.0), found)
    assert (overlay(x, maps, strength=0.0) == 51).all()


def test_overlay_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="maps: expected"):
        overlay(images(2), torch.zeros(2, 32, 31))
    with pytest.raises(ValueError, match=r"strength: expected \[0, 1\], got 2"):
        overlay(images(2), torch.zeros(2, 32, 32), strength=2)
