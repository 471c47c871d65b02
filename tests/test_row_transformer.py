"""The transformer over rows: shapes, what a cell depends on, and refusals."""

import pytest
import torch

from crystens.encoding import present_cells
from crystens.errors import CrystensError
from crystens.networks.row_transformer import RowTransformer


@pytest.fixture
def network() -> RowTransformer:
    torch.manual_seed(0)
    network = RowTransformer(16, width=16, depth=1, heads=2)
    torch.nn.init.normal_(network.transformer.out_proj.weight, std=0.1)
    return network.eval()


def inputs(side: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 4, side, side, generator=generator), torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1, 2, 4])


class Known(torch.nn.Module):
    """A layer that gives the same whatever it is given."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.given = given

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.given


class Unsaid(torch.nn.Module):
    """An embedding that tells levels of noise not apart."""

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(level), 16)


def test_an_untrained_network_gives_next_to_nothing_of_the_image_shape() -> None:
    images, noise, counts = inputs()
    given = RowTransformer(16, width=16, depth=1, heads=2)(images, noise, counts)
    assert given.shape == images.shape
    assert given.abs().max() < 0.1


def test_one_noise_level_for_all_is_that_level_for_each(network: RowTransformer) -> None:
    images, _, counts = inputs()
    level = torch.tensor(0.3)
    assert torch.equal(network(images, level, counts), network(images, level.expand(3), counts))


@pytest.mark.parametrize("which", ["noise", "counts"])
def test_noise_level_and_number_of_sites_change_the_output(network: RowTransformer, which: str) -> None:
    images, noise, counts = inputs()
    other = (noise + 1, counts) if which == "noise" else (noise, 5 - counts)
    apart = (network(images, noise, counts) - network(images, *other)).abs().amax(dim=(1, 2, 3))
    assert (apart > 0).all()


def test_cells_are_made_of_the_two_tokens_that_share_them(network: RowTransformer) -> None:
    tokens = torch.randn(1, 16, 8 + 96 + 2 * 4 * 16, generator=torch.Generator().manual_seed(2))

    images, noise, counts = (given[:1] for given in inputs())
    network.transformer.blocks = torch.nn.ModuleList()
    network.transformer.out_proj = Known(tokens)
    image = network(images, noise, counts)[0]
    attribute, site, other, channel = 4, 13, 15, 2
    in_row, in_column = (8 + half * 48 + channel * 12 + attribute for half in (0, 1))
    assert image[channel, site, attribute] == tokens[0, site, in_row] + tokens[0, attribute, channel]
    assert image[channel, attribute, site] == tokens[0, site, in_column] + tokens[0, attribute, 4 + channel]
    left, right = tokens[0, site, 104:168].view(4, 16), tokens[0, other, 168:].view(4, 16)
    torch.testing.assert_close(image[channel, site, other], left[channel] @ right[channel] / 4)
    assert not image[:, :12, :12].any()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"geometric_pairs": True, "surroundings": True},
        {"symmetric": True},
        {"self_conditioning": True},
    ],
)
def test_a_batch_divided_by_size_is_the_whole_batch(options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    network = RowTransformer(16, width=16, depth=2, heads=2, **options)
    torch.nn.init.normal_(network.transformer.out_proj.weight, std=0.1)
    if network.needs_scales:
        network.tell_scales(torch.ones(13), torch.zeros(13), (-2.0, 2.0))
    counts = torch.tensor([4, 1, 2, 2, 3])
    present = present_cells(counts, 16)[:, None]
    images, noise = torch.randn(5, 4, 16, 16) * present, torch.linspace(-2, 2, 5)
    known = (torch.rand(5, 4, 16, 16) * present,) if network.self_conditioning else ()
    whole = network(images, noise, counts, *known) * present
    whole.square().sum().backward()
    gradient = network.transformer.in_proj.weight.grad.clone()
    network.zero_grad()
    seen = []
    network.transformer.in_proj.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[:2]))
    network.parts = 3
    divided = network(images, noise, counts, *known) * present
    divided.square().sum().backward()
    assert seen == [(2, 14), (2, 15), (1, 16)]
    torch.testing.assert_close(divided, whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.transformer.in_proj.weight.grad, gradient, atol=1e-2, rtol=1e-3)


def test_an_estimate_is_read_and_zeros_are_none() -> None:
    torch.manual_seed(0)
    network = RowTransformer(16, width=16, depth=2, heads=2, self_conditioning=True)
    torch.nn.init.normal_(network.transformer.out_proj.weight, std=0.1)
    images, noise, counts = inputs()
    without = network(images, noise, counts)
    assert torch.equal(network(images, noise, counts, torch.zeros_like(images)), without)
    assert (network(images, noise, counts, images) - without).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def geometric_network(symmetric: bool = False) -> RowTransformer:
    torch.manual_seed(0)
    network = RowTransformer(16, width=16, depth=1, heads=2, geometric_pairs=True, symmetric=symmetric)
    torch.nn.init.normal_(network.transformer.out_proj.weight, std=0.1)
    slopes, offsets = torch.linspace(1, 4, 13), torch.linspace(-0.3, 0.1, 13)
    network.tell_scales(slopes, offsets, (-2.0, 2.0))
    return network


def test_geometric_pairs_are_those_of_the_coordinates_that_the_image_states() -> None:
    network = geometric_network()
    images, _, counts = inputs()
    image = network(images, torch.tensor(-20.0), counts)  # without noise there is nothing to correct
    copies = torch.cat([image[:, :, 1:4, 12:].mT, image[:, :, 12:, 1:4]], dim=1)
    coordinates = (copies.mean(dim=1) - network.offsets[1:4]) / network.slopes[1:4]
    apart = (coordinates[:, :, None] - coordinates[:, None]).permute(0, 3, 1, 2)
    torch.testing.assert_close(image[:, 1:, 12:, 12:], network.slopes[11] * apart + network.offsets[11])
    distances = network.slopes[12] * torch.cdist(coordinates, coordinates) + network.offsets[12]
    torch.testing.assert_close(image[:, 0, 12:, 12:], distances, atol=5e-3, rtol=1e-3)
    image.sum().backward()
    assert network.transformer.out_proj.weight.grad.isfinite().all()


def test_geometric_distances_are_corrected_by_as_much_as_there_is_noise() -> None:
    network = geometric_network()
    images, _, counts = inputs()
    network.noise_embedding = torch.nn.Sequential(Unsaid())  # the tokens do not hear of the level
    without, low, high = (network(images, torch.tensor(level), counts) for level in (-20.0, -1.0, 20.0))
    share = torch.tensor(-1.0).exp() / (1 + torch.tensor(-2.0).exp()).sqrt()
    torch.testing.assert_close(low - without, share * (high - without))
    corrected = (high - without).abs().amax(dim=0) > 1e-4
    assert corrected[0, 12:, 12:].all()
    assert not corrected[1:].any()
    assert not corrected[:, :12].any()


def test_geometric_pairs_are_of_coordinates_as_they_are_cut_in_the_end() -> None:
    network = geometric_network()
    network.tell_scales(network.slopes.clone(), network.offsets.clone(), (-1e-3, 1e-3))
    image = network(*inputs())
    difference = (image[:, 1:, 12:, 12:] - network.offsets[11]) / network.slopes[11]
    widest = 2e-3 / network.slopes[1:4, None, None]
    assert (difference.abs() <= widest + 1e-6).all()
    assert (difference.abs() > 0.1 * widest).any()


def test_symmetric_networks_average_mirror_images_but_not_the_codes_of_atoms(network: RowTransformer) -> None:
    plain = network(*inputs())
    network.symmetric = True
    image = network(*inputs())
    for channel in range(4):
        attributes = (plain[:, channel, 1:12, 12:] + plain[:, channel, 12:, 1:12].mT) / 2
        torch.testing.assert_close(image[:, channel, 1:12, 12:], attributes)
        torch.testing.assert_close(image[:, channel, 12:, 1:12], attributes.mT)
    distances = plain[:, 0, 12:, 12:]
    torch.testing.assert_close(image[:, 0, 12:, 12:], (distances + distances.mT) / 2)
    assert torch.equal(image[:, :, 0], plain[:, :, 0])
    assert torch.equal(image[..., 0], plain[..., 0])
    assert torch.equal(image[:, 1:, 12:, 12:], plain[:, 1:, 12:, 12:])


def test_symmetric_networks_with_geometric_pairs_take_the_averaged_coordinates() -> None:
    network = geometric_network(symmetric=True)
    image = network(*inputs())
    coordinates = (image[:, :, 1:4, 12:].mean(dim=1).mT - network.offsets[1:4]) / network.slopes[1:4]
    apart = (coordinates[:, :, None] - coordinates[:, None]).permute(0, 3, 1, 2)
    torch.testing.assert_close(image[:, 1:, 12:, 12:], network.slopes[11] * apart + network.offsets[11])
    torch.testing.assert_close(image[:, 0, 12:, 12:], image[:, 0, 12:, 12:].mT)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"image_side": 12}, "image_side"),
        ({"width": 15}, "width"),
        ({"depth": 0}, "depth"),
        ({"rank": 0}, "rank"),
        ({"parts": 0}, "parts"),
    ],
)
def test_sizes_out_of_range_are_refused(options: dict[str, int], named: str) -> None:
    with pytest.raises(CrystensError, match=named):
        RowTransformer(**({"image_side": 16, "width": 16, "depth": 1, "heads": 2} | options))


def test_averages_of_noisy_copies_go_past_an_untrained_network() -> None:
    sites, sigma = 4, 0.3
    generator = torch.Generator().manual_seed(3)
    clean = torch.randn(500, 1, 1, 10, generator=generator).expand(-1, 8, sites, -1).clone()
    clean[..., 1:4] = torch.randn(500, 1, sites, 3, generator=generator)
    noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
    images = torch.zeros(500, 4, 16, 16)
    images[:, :, 12:, :10], images[:, :, :10, 12:] = noisy[:, :4], noisy[:, 4:].mT
    counts = torch.full((500,), sites)
    network = RowTransformer(16, width=16, depth=1, heads=2, average_skip=True).eval()
    with torch.no_grad():
        given = network(images / (1 + sigma**2) ** 0.5, torch.tensor(sigma).log(), counts)
    off = torch.cat([given[:, :, 12:, :10], given[:, :, :10, 12:].mT], dim=1) - clean
    # Of a value of variance 1, n copies leave an error of (sigma^2 / n) / (1 + sigma^2 / n).
    for columns, copies in ((slice(1, 4), 8), (slice(4, 10), 8 * sites)):
        variance = sigma**2 / copies
        expected = variance / (1 + variance)
        assert off[..., columns].square().mean() == pytest.approx(expected, rel=0.1)
    assert off[..., 0].square().mean() > 0.5  # atoms have no such average


def test_averages_take_no_empty_slots() -> None:
    images, noise, counts = inputs()
    network = RowTransformer(16, width=16, depth=1, heads=2, average_skip=True).eval()
    torch.nn.init.zeros_(network.transformer.out_proj.weight)
    other = torch.where(present_cells(counts, 16)[:, None], images, 5.0)
    with torch.no_grad():
        apart = (network(images, noise, counts) - network(other, noise, counts)).abs()
    for one, count in zip(apart, counts.tolist(), strict=True):
        assert one[:, : 12 + count, : 12 + count].max() < 1e-6
