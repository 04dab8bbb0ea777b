"""The pages: their links lead somewhere, their code is the project's, their pictures come from its operators."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT, script
from torch import Tensor

from unet import DOWN, UP
from unet.data.isbi2012 import Isbi2012

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
    *sorted((ROOT / "data").glob("**/README.md")),
]


def links(page: Path) -> list[str]:
    """What a page links to inside the project."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link.partition("#")[0] for link in found if not link.startswith(("http", "#"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    assert not [link for link in links(page) if not (page.parent / link).exists()]


def test_every_picture_is_shown():
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    assert set((ROOT / "docs").glob("**/*.png")) <= shown


def test_the_walk_throughs_show_the_code_as_it_is():
    assert inspect.getsource(Isbi2012).strip() in (ROOT / "docs" / "adding_a_data_set.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "adding_an_operator.md").read_text(encoding="utf-8")
    assert inspect.getsource(DOWN["gem"]).strip() in page
    contract = re.search(r"```\n(DOWN .+?)```", page, re.DOTALL)
    registry = (ROOT / "unet" / "network" / "registry.py").read_text(encoding="utf-8")
    assert contract is not None
    for line in contract[1].splitlines():
        for part in re.split(r"\s{2,}", line.partition("->")[0].strip()):
            assert part in registry


def test_the_blackboard_s_numbers():
    """As they stand in tests/test_worked_examples.py; here it is the page's pictures that show them."""
    examples = {
        name: dict(panels) for name, panels in ((n, e()) for n, e in script("worked_examples").EXAMPLES.items())
    }
    assert examples["convolution"]["convolved"][0, 0, 0].tolist() == [4, 3, 4]
    assert examples["pooled_x"]["max, window 2, stride 3"].flatten().tolist() == [1, 3, 3, 1]
    assert examples["pooling"]["average, 2 x 2"].flatten().tolist() == [3.75, 1.25, 4, 2]
    painted = examples["transposed"]["painted, stride 2"]
    assert torch.equal(painted, examples["transposed"]["convolved: the same"]) and painted[0, 0, 2, 2] == 36
    assert examples["bilinear"]["bilinear"][0, 0, 1, 1] == 18.75
    assert examples["unpooling"]["max-unpooled"].count_nonzero() == 4
    assert examples["padding"]["uses, padding 1"][0, 0, 0, 0] == 4
    overlaps = {kernel: examples["checkerboard"][f"patches that overlap, kernel {kernel}"] for kernel in (2, 3, 4)}
    inner = {kernel: sorted(set(counts[..., 2:-2, 2:-2].flatten().tolist())) for kernel, counts in overlaps.items()}
    assert inner == {2: [1], 3: [1, 2, 4], 4: [4]}


@pytest.mark.parametrize("name", script("worked_examples").EXAMPLES)
def test_every_example_is_drawn(name: str):
    examples = script("worked_examples")
    width, height = examples.draw(examples.EXAMPLES[name]()).get_width_height()
    assert width > 100 and height > 80


def grey() -> Tensor:
    return torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1).expand(1, 3, 32, 32)


@pytest.mark.parametrize("name", DOWN)
def test_in_the_gallery_a_down_operator_leaves_even_colour_alone(name: str):
    coarse, given = script("gallery").shrink(name, grey())
    assert coarse.shape == (1, 3, 8, 8) and [x.shape[-1] for x in given] == [32, 16]
    torch.testing.assert_close(coarse, grey()[..., :8, :8], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in UP if name != "unpool"])
def test_in_the_gallery_an_up_operator_leaves_even_colour_alone(name: str):
    gallery = script("gallery")
    back = gallery.grow(name, grey()[..., :8, :8], [grey(), grey()[..., :16, :16]])
    torch.testing.assert_close(back, grey(), atol=1e-4, rtol=0)
    assert gallery.rms(back, grey() + 1) == pytest.approx(255, rel=1e-3)


def test_in_the_gallery_unpooling_puts_values_where_the_skip_was_largest():
    skip = torch.rand(1, 3, 4, 4)
    back = script("gallery").grow("unpool", torch.full((1, 3, 2, 2), 0.5), [skip])
    _, places = torch.nn.functional.max_pool2d(skip, 2, return_indices=True)
    assert back.count_nonzero() == 12
    assert torch.equal(back.flatten(2).gather(2, places.flatten(2)), torch.full((1, 3, 4), 0.5))
