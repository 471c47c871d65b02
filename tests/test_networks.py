"""The networks of the adversarial models, alone: shapes, gradients, parameter counts, and which sides they take."""

import pytest
import torch

from crystens.errors import CrystensError
from crystens.networks.conv import ConvDiscriminator, ConvGenerator
from crystens.networks.paper_gan import PaperDiscriminator, PaperGenerator
from crystens.networks.paper_wgan import PaperCritic, PaperWGANGenerator

PAPER_NETWORKS = (PaperGenerator, PaperDiscriminator, PaperWGANGenerator, PaperCritic)
SCORERS = (
    {},
    {"batch_norm": True, "dropout": 0.25},
    {"spectral_norm": True},
    {"batch_norm": True, "spectral_norm": True},
)


def assert_finite_gradient_for_every_parameter(network, output):
    output.float().square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"
        assert parameter.requires_grad, name


@pytest.mark.parametrize("side", [16, 17, 18, 20, 32, 34, 50, 64])
def test_conv_generator_makes_images_in_range_at_any_side(side):
    images = ConvGenerator(side, latent_dim=8, width=8, hidden=16)(torch.randn(2, 8))
    assert images.shape == (2, 4, side, side)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("side", [16, 17, 18, 20, 32, 34, 50, 64])
@pytest.mark.parametrize("options", SCORERS)
def test_conv_discriminator_gives_one_score_an_image_at_any_side(side, options):
    scores = ConvDiscriminator(side, width=4, hidden=8, **options)(torch.rand(3, 4, side, side))
    assert scores.shape == (3,)


def test_conv_generator_gives_every_parameter_a_finite_gradient():
    network = ConvGenerator(18, latent_dim=8, width=8, hidden=16, blocks=2)
    assert_finite_gradient_for_every_parameter(network, network(torch.randn(4, 8)))


@pytest.mark.parametrize("options", SCORERS)
def test_conv_discriminator_gives_every_parameter_a_finite_gradient(options):
    network = ConvDiscriminator(18, width=4, hidden=8, **options)
    assert_finite_gradient_for_every_parameter(network, network(torch.rand(4, 4, 18, 18)))


def test_last_row_and_column_reach_the_discriminator_when_the_side_is_padded():
    network = ConvDiscriminator(18, width=4, hidden=8).eval()
    images = torch.zeros(2, 4, 18, 18)
    images[1, :, -1, -1] = 1.0
    scores = network(images)
    assert scores[0] != scores[1]


def test_spectral_norm_bounds_every_layer_of_the_discriminator():
    torch.manual_seed(0)
    network = ConvDiscriminator(16, width=4, hidden=8, spectral_norm=True)
    for _ in range(50):
        network(torch.rand(2, 4, 16, 16))
    layers = [m for m in network.eval().modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 5
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("side", [15, 0, -4])
@pytest.mark.parametrize("network", [ConvGenerator, ConvDiscriminator])
def test_conv_networks_refuse_a_side_below_16(network, side):
    with pytest.raises(CrystensError, match=f"image_side={side} is too small"):
        network(side)


def test_conv_discriminator_refuses_to_have_no_channel():
    with pytest.raises(CrystensError, match="width=0"):
        ConvDiscriminator(16, width=0)


def test_conv_generator_refuses_an_odd_width():
    with pytest.raises(CrystensError, match="width=7"):
        ConvGenerator(16, width=7)


@pytest.mark.parametrize(
    ("build", "latent"),
    [
        (lambda: ConvGenerator(16, latent_dim=8, width=8, hidden=16), True),
        (lambda: ConvDiscriminator(16, width=4, hidden=8, spectral_norm=True), False),
        (PaperWGANGenerator, True),
        (PaperCritic, False),
    ],
)
def test_loading_a_saved_network_gives_the_same_output(build, latent, tmp_path):
    network, other = build(), build()
    inputs = torch.randn(2, network.latent_dim) if latent else torch.rand(2, 4, network.image_side, network.image_side)
    network(inputs)  # moves running statistics and singular vectors off their first values
    torch.save(network.state_dict(), tmp_path / "network.pt")
    other.load_state_dict(torch.load(tmp_path / "network.pt", weights_only=True))
    assert torch.equal(network.eval()(inputs), other.eval()(inputs))


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (PaperGenerator, 10_462_041),
        (PaperDiscriminator, 21_469_948),
        (PaperWGANGenerator, 1_060_129),
        (PaperCritic, 508_113),
    ],
)
def test_paper_network_has_as_many_parameters_as_an_independent_build(network, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in network().parameters()) == count


@pytest.mark.parametrize("network", [PaperGenerator, PaperWGANGenerator])
def test_paper_generator_makes_images_of_side_64_in_range(network):
    with torch.no_grad():
        images = network()(torch.randn(2, 128))
    assert images.shape == (2, 4, 64, 64)
    assert 0 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("network", [PaperDiscriminator, PaperCritic])
def test_paper_discriminator_gives_one_score_an_image(network):
    with torch.no_grad():
        assert network()(torch.rand(2, 4, 64, 64)).shape == (2,)


@pytest.mark.slow
@pytest.mark.parametrize("network", PAPER_NETWORKS)
def test_paper_network_gives_every_parameter_a_finite_gradient(network):
    built = network()
    inputs = torch.randn(2, 128) if hasattr(built, "latent_dim") else torch.rand(2, 4, 64, 64)
    assert_finite_gradient_for_every_parameter(built, built(inputs))


@pytest.mark.parametrize("network", PAPER_NETWORKS)
def test_paper_network_refuses_any_side_but_64(network):
    with pytest.raises(CrystensError, match=r"need image_side=64 \(max_sites=52\), got image_side=32 \(max_sites=20\)"):
        network(image_side=32)


@pytest.mark.parametrize("network", [PaperWGANGenerator, PaperCritic])
def test_every_layer_of_the_paper_wgan_is_under_spectral_norm(network):
    layers = [
        m for m in network().modules() if isinstance(m, torch.nn.Conv3d | torch.nn.ConvTranspose3d | torch.nn.Linear)
    ]
    assert len(layers) == {PaperWGANGenerator: 11, PaperCritic: 13}[network]
    assert all(torch.nn.utils.parametrize.is_parametrized(layer, "weight") for layer in layers)
