"""The docs: their links, the code they quote, and the pictures made with the project's operators."""

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
    """Return the links of a page to files of the project."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link.partition("#")[0] for link in targets if not link.startswith(("http", "#"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_exist(page: Path):
    assert not [link for link in links(page) if not (page.parent / link).exists()]


def test_every_picture_is_linked():
    assert set((ROOT / "docs").glob("**/*.png")) <= {
        (page.parent / link).resolve() for page in PAGES for link in links(page)
    }


def test_the_api_page_is_current():
    """python scripts/maintain/api_page.py writes it."""
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == script("api_page").api_page()


def test_the_docs_quote_current_code():
    assert inspect.getsource(Isbi2012).strip() in (ROOT / "docs" / "adding_a_data_set.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "adding_an_operator.md").read_text(encoding="utf-8")
    assert inspect.getsource(DOWN["gem"]).strip() in page
    contract = re.search(r"```\n(DOWN .+?)```", page, re.DOTALL)
    registry = (ROOT / "unet" / "network" / "registry.py").read_text(encoding="utf-8")
    assert contract is not None
    for line in contract[1].splitlines():
        for part in re.split(r"\s{2,}", line.partition("->")[0].strip()):
            assert part in registry


@pytest.mark.parametrize("name", script("worked_examples").EXAMPLES)
def test_every_example_is_drawn(name: str):
    examples = script("worked_examples")
    width, height = examples.draw(examples.EXAMPLES[name]()).get_width_height()
    assert width > 100 and height > 80


def constant_image() -> Tensor:
    return torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1).expand(1, 3, 32, 32)


@pytest.mark.parametrize("name", DOWN)
def test_down_operators_of_the_gallery_preserve_a_constant_image(name: str):
    coarse, inputs = script("gallery").downsample(name, constant_image())
    assert coarse.shape == (1, 3, 8, 8) and [x.shape[-1] for x in inputs] == [32, 16]
    torch.testing.assert_close(coarse, constant_image()[..., :8, :8], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in UP if name != "unpool"])
def test_up_operators_of_the_gallery_preserve_a_constant_image(name: str):
    gallery = script("gallery")
    output = gallery.upsample(name, constant_image()[..., :8, :8], [constant_image(), constant_image()[..., :16, :16]])
    torch.testing.assert_close(output, constant_image(), atol=1e-4, rtol=0)
    assert gallery.rmse(output, constant_image() + 1) == pytest.approx(255, rel=1e-3)


def test_unpooling_of_the_gallery_puts_values_at_the_maxima_of_the_skip():
    skip = torch.rand(1, 3, 4, 4)
    output = script("gallery").upsample("unpool", torch.full((1, 3, 2, 2), 0.5), [skip])
    _, indices = torch.nn.functional.max_pool2d(skip, 2, return_indices=True)
    assert output.count_nonzero() == 12
    assert torch.equal(output.flatten(2).gather(2, indices.flatten(2)), torch.full((1, 3, 4), 0.5))
