"""The low-resolution images of the cascade: what they keep, and where it goes."""

import pytest
import torch

from crystens.encoding import HEADER
from crystens.errors import CrystensError
from crystens.networks.low_resolution import choose_low_resolution


def _images(sites: int, max_sites: int, seed: int = 0) -> torch.Tensor:
    """Two images built as the encoding builds them, of random values in [0.1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(2, 4, HEADER + max_sites, HEADER + max_sites)
    attributes = 0.1 + 0.9 * torch.rand(2, 1, 11, sites, generator=generator)
    attributes[:, :, 4:] = attributes[:, :, 4:, :1]
    images[:, :, :11, HEADER : HEADER + sites] = attributes
    images[:, :, HEADER : HEADER + sites, :11] = attributes.mT
    block = torch.rand(2, 4, sites, sites, generator=generator)
    images[:, :, HEADER : HEADER + sites, HEADER : HEADER + sites] = block
    return images


@pytest.mark.parametrize(("sites", "max_sites"), [(52, 52), (7, 52), (1, 20), (20, 20)])
def test_folded_keeps_every_attribute_of_every_site_bit_for_bit(sites: int, max_sites: int) -> None:
    images = _images(sites, max_sites)
    folded = choose_low_resolution("folded")

    restored = folded.enlarge(folded.reduce(images))

    assert folded.reduce(images).shape == (2, 4, images.shape[-1] // 2, images.shape[-1] // 2)
    assert torch.equal(restored[..., :HEADER, :], images[..., :HEADER, :])
    assert torch.equal(restored[..., :HEADER], images[..., :HEADER])


@pytest.mark.parametrize(("attribute", "site"), [(0, 0), (1, 0), (6, 3), (7, 12), (10, 5)])
def test_folded_puts_an_attribute_where_the_docstring_says(attribute: int, site: int) -> None:
    images = _images(20, 20)
    low = choose_low_resolution("folded").reduce(images)

    channel = 2 * (attribute % 2) + site % 2
    value = images[:, 2, attribute, HEADER + site]
    assert torch.equal(low[:, channel, attribute // 2, 6 + site // 2], value)
    assert torch.equal(low[:, channel, 6 + site // 2, attribute // 2], value)


def test_folded_block_is_the_mean_over_pairs_of_sites() -> None:
    images = _images(20, 20)
    folded = choose_low_resolution("folded")
    low = folded.reduce(images)

    expected = images[:, :, 14:16, 18:20].mean(dim=(-1, -2))
    assert torch.allclose(low[..., 7, 9], expected)
    assert torch.allclose(folded.enlarge(low)[..., 14:16, 18:20], expected[..., None, None].expand(-1, -1, 2, 2))


def test_folded_counts_an_absent_site_as_zeros_in_the_mean_but_keeps_it_absent_in_the_strips() -> None:
    images = _images(7, 20)
    folded = choose_low_resolution("folded")
    low = folded.reduce(images)

    last_pair = 6 + 6 // 2
    assert torch.allclose(low[..., 6, last_pair], images[..., 12:14, 18].sum(dim=-1) / 4)
    assert (low[:, 0, 0, last_pair] > 0).all()
    assert (low[:, 1, 0, last_pair] == 0).all()


def test_folded_image_of_a_symmetric_image_is_symmetric() -> None:
    images = _images(9, 20)
    images = (images + images.mT) / 2
    low = choose_low_resolution("folded").reduce(images)
    assert torch.allclose(low, low.mT)


def test_nearest_is_what_imagen_does_and_never_sees_odd_attributes_or_sites() -> None:
    images = _images(20, 20)
    nearest = choose_low_resolution("nearest")
    low = nearest.reduce(images)
    altered = images.clone()
    altered[..., 1::2, :] = 0
    altered[..., 1::2] = 0

    assert torch.equal(low, torch.nn.functional.interpolate(images, 16, mode="nearest"))
    assert torch.equal(low, nearest.reduce(altered))
    assert torch.equal(nearest.enlarge(low), torch.nn.functional.interpolate(low, 32, mode="nearest"))


def test_reduce_inverts_enlarge_for_images_that_a_network_made() -> None:
    low = torch.rand(3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    for name in ("folded", "nearest"):
        resolution = choose_low_resolution(name)
        assert torch.allclose(resolution.reduce(resolution.enlarge(low)), low)


def test_unknown_low_resolution_is_named_with_the_known_ones() -> None:
    with pytest.raises(CrystensError, match=r"'bilinear'.*folded.*nearest"):
        choose_low_resolution("bilinear")
