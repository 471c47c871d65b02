"""Codes in a network: likelihoods are exact, what is drawn is a mean of codes there are, and groups weigh positions."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch

from crystens.encoding import GROUP_ROW, HEADER, POSITION_ROW, QUANTITIES
from crystens.errors import CrystensError
from crystens.models.edm import EDM
from crystens.networks.codes.heads import CODED_ROWS, CodeHeads
from crystens.networks.codes.stated import Allowed, Evidence
from crystens.networks.row_transformer import RowTransformer
from crystens.orbits.scaling import OrbitScaling
from crystens.scaling import Scaling
from crystens.symmetry.wyckoff import space_group

SIDE = 16
SCALES = {0: 2.0, GROUP_ROW: 4.0, POSITION_ROW: 3.0}
COUNTS = torch.tensor([2, 3])
LOG_NOISE = torch.tensor([2.0, 5.0]).log()


@pytest.fixture(scope="module")
def scaling() -> OrbitScaling:
    return OrbitScaling({name: (0.0, 1.0) for name in QUANTITIES}, SIDE - HEADER, gap=0.1, diagonal=True)


@pytest.fixture(scope="module")
def tables(scaling: OrbitScaling) -> dict[int, torch.Tensor]:
    return {row: (codes - 0.5) / 0.25 for row, codes in scaling.code_tables().items()}


@pytest.fixture
def heads(tables: dict[int, torch.Tensor]) -> CodeHeads:
    torch.manual_seed(0)
    made = CodeHeads(32, orbits=True)
    made.tell(tables, SCALES)
    return made


def scale_of_cells() -> torch.Tensor:
    scales = torch.ones(SIDE, SIDE)
    for row, scale in SCALES.items():
        scales[row] = scales[:, row] = scale
    return scales


def crystal(tables: dict[int, torch.Tensor], group: int, orbits: list[tuple[int, int]]) -> torch.Tensor:
    """Clean image (4, S, S) of nothing but codes: of each orbit its element and the place of its letter."""
    image = torch.zeros(4, SIDE, SIDE)
    for slot, (element, place) in enumerate(orbits, HEADER):
        codes = {0: tables[0][element], GROUP_ROW: tables[GROUP_ROW][group]}
        for row, code in (codes | {POSITION_ROW: tables[POSITION_ROW][group, place]}).items():
            image[:, row, slot], image[:, slot, row] = code[:4], code[4:]
    return image


def clean_images(tables: dict[int, torch.Tensor]) -> torch.Tensor:
    return torch.stack([crystal(tables, 225, [(11, 0), (17, 1)]), crystal(tables, 14, [(8, 4), (8, 4), (40, 0)])])


def given(clean: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Noisy images as a denoiser gives them to a network."""
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    sigma = LOG_NOISE.exp()[:, None, None, None]
    return (clean * scale_of_cells() + sigma * noise) / (scale_of_cells().square() + sigma.square()).sqrt()


def test_likelihoods_are_those_of_gaussian_noise(heads: CodeHeads, tables: dict[int, torch.Tensor]) -> None:
    images = given(clean_images(tables))
    found = heads.evidence(images, LOG_NOISE, COUNTS)
    for which, (row, evidence) in enumerate(zip(CODED_ROWS, (found.elements, None, found.positions), strict=True)):
        sigma = LOG_NOISE.exp()[:, None, None]
        cells = torch.cat([images[:, :, row, HEADER:].mT, images[:, :, HEADER:, row].mT], dim=2)
        cells = cells * (SCALES[row] ** 2 + sigma**2).sqrt() / SCALES[row]
        known = (heads.element_codes, heads.group_codes, heads.position_codes)[which]
        sites = []
        for image in range(2):
            noise = float(LOG_NOISE.exp()[image]) / SCALES[row]
            each = [torch.distributions.Normal(known, noise).log_prob(one).sum(dim=1) for one in cells[image]]
            sites.append(torch.stack(each))
        logits = torch.stack(sites)
        if evidence is None:  # all orbits state the group
            there = torch.arange(cells.shape[1]) < COUNTS[:, None]
            logits, evidence = (logits * there[..., None]).sum(dim=1), found.groups
        assert evidence is not None
        torch.testing.assert_close(evidence.softmax(dim=-1), logits.softmax(dim=-1), atol=1e-4, rtol=1e-3)


def test_an_untaught_network_draws_the_mean_of_the_codes_by_the_cells_alone(
    heads: CodeHeads, tables: dict[int, torch.Tensor]
) -> None:
    found = heads.evidence(given(clean_images(tables)), LOG_NOISE, COUNTS)
    torch.nn.init.zeros_(heads.draw_elements.weight)
    drawn = heads.draw(torch.randn(2, SIDE, 32), found, COUNTS)
    mean = torch.einsum("bnk,kd->bnd", found.elements[:, :, 1:].softmax(dim=2), tables[0][1:])
    torch.testing.assert_close(drawn[0], mean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.02, 1e3])
def test_what_is_drawn_lies_within_the_codes_there_are(
    heads: CodeHeads, tables: dict[int, torch.Tensor], sigma: float
) -> None:
    clean = clean_images(tables)
    log_noise = torch.full((2,), math.log(sigma))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    images = (clean * scale_of_cells() + sigma * noise) / (scale_of_cells().square() + sigma**2).sqrt()
    drawn = heads.draw(torch.zeros(2, SIDE, 32), heads.evidence(images, log_noise, COUNTS), COUNTS)
    for row in CODED_ROWS:
        assert drawn[row].abs().max() <= 2 + 1e-4
        if sigma < 1:  # nearly no noise: the codes themselves
            cells = torch.cat([clean[:, :, row, HEADER:].mT, clean[:, :, HEADER:, row].mT], dim=2)
            for image, count in enumerate(COUNTS.tolist()):
                torch.testing.assert_close(drawn[row][image, :count], cells[image, :count], atol=1e-4, rtol=0)


def test_positions_are_those_of_the_group(heads: CodeHeads, tables: dict[int, torch.Tensor]) -> None:
    """With noise that hides the letter, one that the group does not have is not drawn."""
    found = heads.evidence(given(clean_images(tables)), LOG_NOISE, COUNTS)
    groups = torch.full((2, 231), -1e4)
    groups[:, 14] = 0
    nothing_seen = torch.zeros_like(found.positions)
    evidence = type(found)(found.elements, groups, nothing_seen)
    drawn = heads.draw(torch.zeros(2, SIDE, 32), evidence, torch.tensor([1, 1]))[POSITION_ROW]
    mean = tables[POSITION_ROW][14, : len(space_group(14).positions)].unique(dim=0).mean(dim=0)
    torch.testing.assert_close(drawn[:, 0], mean.expand(2, -1), atol=0.02, rtol=0)


def test_two_orbits_do_not_share_a_position_that_holds_one(heads: CodeHeads, tables: dict[int, torch.Tensor]) -> None:
    """Both cells say 4a of group 225, the second less: it goes to the next likely position, and 32f may be shared."""
    evidence = heads.evidence(given(clean_images(tables)), LOG_NOISE, COUNTS)
    groups = torch.full((2, 231), -1e4)
    groups[:, 225] = 0
    codes = heads.positions.long()[225]
    positions = torch.full_like(evidence.positions, -50.0)
    positions[0, :2, codes[0]] = torch.tensor([5.0, 4.0])
    positions[0, :2, codes[1]] = 0
    positions[1, :2, codes[5]] = 5
    for layer in (heads.draw_elements, heads.draw_groups, heads.draw_positions):
        torch.nn.init.zeros_(layer.weight)
    known = type(evidence)(evidence.elements, groups, positions)
    drawn = heads.draw(torch.zeros(2, SIDE, 32), known, torch.tensor([2, 2]))[POSITION_ROW]
    assert space_group(225).letters[:6] == "abcdef"
    stated = torch.cdist(drawn[:, :2], tables[POSITION_ROW][225, :9]).argmin(dim=2)
    assert stated.tolist() == [[0, 1], [5, 5]]
    alone = heads.draw(torch.zeros(2, SIDE, 32), known, torch.tensor([1, 1]))[POSITION_ROW]
    torch.testing.assert_close(alone[0, 0], tables[POSITION_ROW][225, 0], atol=0.05, rtol=0)


def test_tokens_read_where_the_likely_position_lets_a_site_be(
    heads: CodeHeads, tables: dict[int, torch.Tensor]
) -> None:
    for layer in (heads.read_elements, heads.read_positions):
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(heads.read_places.weight)
    heads.read_places.weight.data[:13] = torch.eye(13)
    images = clean_images(tables)
    log_noise = torch.full((2,), -9.0)
    read, _ = heads.read(heads.evidence(images, log_noise, COUNTS), COUNTS)
    assert not read[:, :HEADER].any()
    for image, (group, places) in enumerate(((225, (0, 1)), (14, (4, 4, 0)))):
        for slot, place in enumerate(places, HEADER):
            position = space_group(group).positions[place]
            expected = [*position.linear.flatten(), *position.shift, math.log2(position.multiplicity) / 4]
            torch.testing.assert_close(read[image, slot, :13], torch.tensor(expected).float(), atol=1e-4, rtol=0)


def test_images_of_all_sites_have_codes_of_elements_alone() -> None:
    scaling = Scaling({name: (0.0, 1.0) for name in QUANTITIES}, SIDE - HEADER, gap=0.1, diagonal=True, atoms="bits")
    network = RowTransformer(SIDE, width=16, depth=1, heads=2, codes=True)
    edm = EDM(network, functools.partial(torch.optim.AdamW, lr=1e-3), atom_scale=2.0)
    edm.prepare_for_images(SIDE, scaling, "fractional")
    image = torch.rand(2, 4, SIDE, SIDE)
    edm.loss(image, COUNTS).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert edm.average_network.codes.scales.tolist() == [2, 1, 1]


@pytest.mark.parametrize("options", [{"atoms": "number"}, {"space_groups": "number"}])
def test_images_that_state_numbers_are_refused(options: dict[str, str]) -> None:
    scaling = OrbitScaling({name: (0.0, 1.0) for name in QUANTITIES}, SIDE - HEADER, gap=0.1, diagonal=True, **options)
    network = RowTransformer(SIDE, width=16, depth=1, heads=2, codes=True, orbits=True)
    edm = EDM(network, functools.partial(torch.optim.AdamW, lr=1e-3), rows=HEADER)
    with pytest.raises(CrystensError, match=r"encoding.atoms=bits and encoding.space_group=bits"):
        edm.prepare_for_images(SIDE, scaling, "fractional")
    with pytest.raises(CrystensError, match="call prepare_for_images"):
        edm.on_fit_start()


def test_what_is_not_allowed_is_never_drawn(heads: CodeHeads, tables: dict[int, torch.Tensor]) -> None:
    allowed = Allowed.everything(2, SIDE - HEADER)
    allowed.groups[0] = False
    allowed.groups[0, [221, 225]] = True
    allowed.elements[0] = False
    allowed.elements[0, :, [8, 22]] = True
    allowed.positions[1, 1] = False
    allowed.positions[1, 1, 3] = True
    allowed.groups[1] = False
    allowed.groups[1, 14] = True
    images, log_noise = torch.zeros(2, 4, SIDE, SIDE), torch.full((2,), 9.0)
    evidence = heads.evidence(images, log_noise, COUNTS, allowed)
    chances = evidence.groups.softmax(dim=1)
    assert chances[0, [221, 225]].sum() == 1
    assert chances[1, 14] == 1
    assert evidence.elements[0].softmax(dim=1)[:, [8, 22]].sum(dim=1) == pytest.approx(1)
    assert evidence.elements[1].softmax(dim=1).max() < 0.02
    drawn = heads.draw(torch.zeros(2, SIDE, 32), evidence, COUNTS)
    torch.testing.assert_close(drawn[POSITION_ROW][1, 1], tables[POSITION_ROW][14, 3], atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn[GROUP_ROW][1, 0], tables[GROUP_ROW][14], atol=1e-4, rtol=0)


def test_clean_images_say_what_they_state(heads: CodeHeads, tables: dict[int, torch.Tensor]) -> None:
    stated = heads.stated(clean_images(tables), COUNTS)
    assert stated.groups.tolist() == [225, 14]
    assert stated.elements[0, :2].tolist() == [11, 17]
    assert stated.elements[1, :3].tolist() == [8, 8, 40]
    assert stated.places[0, :2].tolist() == [0, 1]
    assert stated.places[1, :3].tolist() == [4, 4, 0]


def test_every_weight_of_codes_is_trained(scaling: OrbitScaling, tables: dict[int, torch.Tensor]) -> None:
    network = RowTransformer(SIDE, width=16, depth=1, heads=2, codes=True, orbits=True)
    edm = EDM(
        network,
        functools.partial(torch.optim.AdamW, lr=1e-3),
        rows=HEADER,
        atom_scale=2.0,
        group_scale=4.0,
        position_scale=3.0,
    )
    edm.prepare_for_images(SIDE, scaling, "fractional")
    images = (clean_images(tables) * 0.25 + 0.5).repeat(8, 1, 1, 1)
    edm.loss(images, COUNTS.repeat(8)).backward()
    untrained = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert untrained == []


def test_codes_are_read_in_float32_whatever_the_precision_of_the_weights(tables: dict[int, torch.Tensor]) -> None:
    torch.manual_seed(0)
    network = RowTransformer(SIDE, width=16, depth=1, heads=2, codes=True, orbits=True).to(torch.bfloat16)
    network.tell_codes(tables, SCALES)
    images = given(clean_images(tables)).to(torch.bfloat16)
    drawn = network(images, torch.full((2,), -3.0, dtype=torch.bfloat16), COUNTS)
    assert drawn.dtype == torch.bfloat16
    assert network.codes.stated(clean_images(tables), COUNTS).groups.tolist() == [225, 14]
    drawn.float().square().sum().backward()
    assert network.codes.draw_groups.weight.grad.isfinite().all()


@pytest.mark.parametrize("untied", [True, False])
def test_cross_entropy_is_that_of_the_codes_that_are_right(
    heads: CodeHeads, tables: dict[int, torch.Tensor], untied: bool
) -> None:
    if untied:  # the sites' own costs add up
        torch.nn.init.zeros_(heads.draw_same.weight)
        torch.nn.init.zeros_(heads.draw_same.bias)
    clean = clean_images(tables)
    stated = heads.stated(clean, COUNTS)
    tokens = torch.randn(2, SIDE, 32, generator=torch.Generator().manual_seed(1))
    evidence = heads.evidence(given(clean), LOG_NOISE, COUNTS)
    heads.eval()
    heads.draw(tokens, evidence, COUNTS)
    assert heads.posterior is None  # only in training
    heads.train()
    heads.draw(tokens, evidence, COUNTS)
    found = heads.posterior
    costs = heads.cross_entropy(stated, COUNTS)
    assert heads.posterior is None
    chained, _ = heads.chain.posterior(found.elements, COUNTS, found.same)
    for image, count in enumerate(COUNTS.tolist()):
        group = int(stated.groups[image])
        expected = -float(found.groups[image].log_softmax(dim=0)[group])
        for site in range(count):
            code = int(heads.positions[group, stated.places[image, site]])
            expected -= float(found.positions[image, site].log_softmax(dim=0)[code]) / count
            if not untied:
                continue
            expected -= float(chained[image, site, stated.elements[image, site]]) / count
        if not untied:
            right = heads.chain.score(found.elements, COUNTS, stated.elements, found.same)[image]
            expected += float(found.total[image] - right) / count
        assert float(costs[image]) == pytest.approx(expected, rel=1e-3)
    no_noise = heads.evidence(clean, torch.full((2,), -5.0), COUNTS)
    heads.draw(torch.zeros(2, SIDE, 32), no_noise, COUNTS)
    assert heads.cross_entropy(stated, COUNTS).max() < 1e-2


def test_cross_entropy_takes_the_place_of_the_error_of_digits(tables: dict[int, torch.Tensor]) -> None:
    def loss(**options: float) -> torch.Tensor:
        torch.manual_seed(0)
        network = RowTransformer(SIDE, width=16, depth=1, heads=2, codes=True, orbits=True)
        edm = EDM(network, functools.partial(torch.optim.AdamW, lr=1e-3), rows=HEADER, **options)
        scaling = OrbitScaling({name: (0.0, 1.0) for name in QUANTITIES}, SIDE - HEADER, gap=0.1, diagonal=True)
        edm.prepare_for_images(SIDE, scaling, "fractional")
        torch.manual_seed(1)
        return edm.loss(clean_images(tables) * 0.25 + 0.5, COUNTS)

    assert loss(code_weight=1.0) > loss(code_weight=0.5) > loss(code_weight=1e-6) > 0
    # Without it the weight of elements matters, and with it no longer.
    assert loss(atom_weight=1.0) != loss(atom_weight=50.0)
    assert loss(atom_weight=1.0, code_weight=0.1) == loss(atom_weight=50.0, code_weight=0.1)
    with pytest.raises(CrystensError, match=r"code_weight=-1.0 must not be negative"):
        loss(code_weight=-1.0)
    with pytest.raises(CrystensError, match=r"code_weight=0.1 .* above 0 it needs model.network.codes=true"):
        EDM(RowTransformer(SIDE, 16, 1, 2), functools.partial(torch.optim.AdamW, lr=1e-3), code_weight=0.1)


def test_positions_add_up_to_the_sites_that_are_known(heads: CodeHeads) -> None:
    torch.manual_seed(3)
    group, orbits, most = 225, 3, len(space_group(225).positions)
    multiplicities = [position.multiplicity // 4 for position in space_group(group).positions]
    codes = heads.positions[group, :most].long()
    logits = torch.full((2, SIDE - HEADER, 108), -1e4)
    logits[:, :, codes] = torch.randn(2, SIDE - HEADER, most)
    shares = torch.zeros(2, 231)
    shares[:, group] = 1
    present = torch.arange(SIDE - HEADER) < torch.tensor([[orbits], [orbits]])
    found = heads._adding_up(logits, shares, present, torch.tensor([10.0, math.nan])).softmax(dim=2)
    expected = torch.zeros(orbits, most)
    own = logits[0].softmax(dim=1)
    for places in itertools.product(range(most), repeat=orbits):
        total = sum(multiplicities[place] for place in places)
        chance = math.exp(-2.0 * abs(total - 10)) * math.prod(
            float(own[orbit, codes[place]]) for orbit, place in enumerate(places)
        )
        for orbit, place in enumerate(places):
            expected[orbit, place] += chance
    expected /= expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(found[0, :orbits][:, codes], expected, atol=2e-4, rtol=1e-2)
    torch.testing.assert_close(found[1], logits[1].softmax(dim=1))  # it is not known
    shares[:, group], shares[:, 14] = 0.4, 0.4
    torch.testing.assert_close(heads._adding_up(logits, shares, present, torch.tensor([10.0, 10.0])), logits)


def test_elements_whose_charges_do_not_add_up_are_unlikely_in_a_neutral_crystal(heads: CodeHeads) -> None:
    elements = torch.full((4, SIDE - HEADER, 119), -60.0)
    elements[:, 0, [11, 20]] = 0.0  # sodium or calcium on a
    elements[:, 1, 17] = 0.0  # chlorine on c, two sites
    counts = torch.full((4,), 2)
    same = torch.zeros(4, SIDE - HEADER - 1)
    groups = torch.full((4, 231), -60.0)
    groups[:, 225] = 60.0
    positions = torch.full((4, SIDE - HEADER, 108), -60.0)
    for orbit, place in enumerate((0, 2)):
        positions[:, orbit, heads.positions[225, place].long()] = 60.0
    positions[3, 1, heads.positions[225, 1].long()] = 60.0  # or on b, one site
    chained = heads.chain.posterior(elements, counts, same)[0]
    neutral = torch.tensor([1.0, 0.0, math.nan, 1.0])
    found = heads._neutral(elements, chained, counts, same, groups, positions, neutral)
    shares = found[:, 0].softmax(dim=1)
    assert float(shares[0, 20]) > 0.99
    torch.testing.assert_close(found[1:], elements[1:])  # told otherwise, not told, and not certain of the amounts


def test_a_single_orbit_takes_a_position_on_which_it_has_the_group(
    heads: CodeHeads, tables: dict[int, torch.Tensor]
) -> None:
    """Group 216: alone, no orbit on 4a to 4d has it; beside another all positions may be drawn. Group 1: none has."""
    seen = heads.evidence(given(clean_images(tables)), LOG_NOISE, COUNTS)
    groups = torch.full((2, 231), -1e3)
    groups[:, 216], groups[:, 1] = 0, 1
    for layer in (heads.draw_elements, heads.draw_groups, heads.draw_positions):
        torch.nn.init.zeros_(layer.weight)
    known = Evidence(seen.elements, groups, torch.zeros_like(seen.positions))
    drawn = heads.eval().draw(torch.zeros(2, SIDE, 32), known, torch.tensor([1, 2]))
    codes = tables[POSITION_ROW][216]
    assert space_group(216).letters == "abcdefghi"
    torch.testing.assert_close(drawn[GROUP_ROW][0, 0], tables[GROUP_ROW][216], atol=1e-3, rtol=0)
    torch.testing.assert_close(drawn[POSITION_ROW][0, 0], codes[[4, 7, 8]].mean(dim=0), atol=1e-3, rtol=0)
    shares = torch.tensor([0.0, 1.0]).softmax(dim=0)
    expected = shares[0] * tables[GROUP_ROW][216] + shares[1] * tables[GROUP_ROW][1]
    torch.testing.assert_close(drawn[GROUP_ROW][1, 0], expected, atol=1e-3, rtol=0)
