"""The page: a picture goes in, labels, probabilities and differences come out. Gradio draws it."""

# pyright: reportMissingImports=false

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import, which would ask the network
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr
from PIL import Image

from unet.apply import PredictOptions
from unet.data.source import Array
from unet.demo.answer import Answer, answer
from unet.demo.networks import Network
from unet.demo.pictures import Choice, picture
from unet.demo.tables import legend, networks_table, refusal, summary
from unet.errors import UserError
from unet.pictures import to_rgb
from unet.prediction.folder import reason
from unet.prediction.reading import ImageReader

THUMBNAIL = 160
WIDE = 640
KEPT = 3600
"""Seconds that an upload and an answer are kept after they were last needed."""
WAITING = 16
"""Pictures that may wait for the networks; they take one at a time."""
INTRODUCTION = (
    "<h1>Try it</h1><p>Upload a picture or pick one: every pixel gets the class the network finds most probable. "
    "Nothing leaves the computer that runs this page.</p>"
)
STYLE = """
#summary { margin: 0; } #summary.refused { color: #b00020; font-weight: 600; }
.dark #summary.refused { color: #ff8a80; }
.swatch { display: inline-block; width: 1em; height: 1em; border: 1px solid #888; vertical-align: middle; }
.facts table { width: 100%; border-collapse: collapse; }
.facts table, .facts thead, .facts tbody, .facts tr { border: 0 !important; }
.facts th, .facts td { text-align: left; padding: 2px 6px; overflow-wrap: anywhere; }
.facts th, .facts td { border: 0 !important; border-bottom: 1px solid #8886 !important; }
"""


class Page:
    """What the page's events call. Every method gives the values of :meth:`outputs`, or of a part of them.

    Args:
        networks: one or two.
        choices: pictures to pick from.
        how: how the networks are applied.
        megapixels: no picture is larger.
    """

    def __init__(self, networks: Sequence[Network], choices: Sequence[Choice], how: PredictOptions, megapixels: float):
        self.networks, self.how, self.megapixels = networks, how, megapixels
        self.choices, self.thumbnails = readable(choices)

    def uploaded(self, path: str | None, label: int) -> list[Any]:
        """An uploaded file's answer; of the file's place on this machine nothing is said."""
        if path is None:
            return self.refused("no file was uploaded")
        file = Path(path)
        return self.answered(file.name, lambda: picture(file, self.megapixels), label, file)

    def picked(self, index: int, label: int) -> list[Any]:
        choice = self.choices[index]
        return self.answered(choice.name, choice.read, label)

    def answered(self, name: str, read: Callable[[], ImageReader], label: int, path: Path | None = None) -> list[Any]:
        try:
            found = answer(self.networks, read(), self.how)
        except Exception as error:
            file = path or Path(name)
            return self.refused(reason(file, error).replace(str(file), name))
        text = [found, summary(name, found), legend(self.networks, found)]
        return [*text, enlarged(found.shown), *self.labels(found), *self.probabilities(found, label)]

    def refused(self, sentence: str) -> list[Any]:
        """A sentence in the answer's place."""
        pictures = 1 + 2 * len(self.networks) + (len(self.networks) == 2)
        return [None, refusal(sentence), legend(self.networks, None), *[None] * pictures]

    def labels(self, found: Answer) -> list[Array]:
        overlays = [found.overlay(number, one.model.colors) for number, one in enumerate(self.networks)]
        pictures = [*overlays, found.differences()] if len(overlays) == 2 else overlays
        return [enlarged(one) for one in pictures]

    def probabilities(self, found: Answer | None, label: int) -> list[Array | None]:
        return [found and enlarged(found.probability(number, label)) for number in range(len(self.networks))]

    def build(self) -> gr.Blocks:
        """The page's parts, and which event fills which."""
        classes, two = self.networks[0].model.classes, len(self.networks) == 2
        with gr.Blocks(title="Try it: U-Net resampling lab", analytics_enabled=False, delete_cache=(600, KEPT)) as page:
            found = gr.State(None, time_to_live=KEPT)
            gr.HTML(INTRODUCTION)
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    upload = gr.File(label="Upload a picture", height=120, elem_id="upload")
                    gallery = gr.Gallery(
                        self.thumbnails, label="Or pick one", columns=2, height=300, object_fit="cover",
                        allow_preview=False, interactive=False, buttons=[], visible=bool(self.choices),
                        elem_id="choices",
                    )  # fmt: skip
                    facts = gr.HTML(legend(self.networks, None), elem_classes="facts", elem_id="legend")
                with gr.Column(scale=3, min_width=320):
                    gr.HTML(networks_table(self.networks), elem_classes="facts", elem_id="networks")
                    said = gr.HTML('<p id="summary">No picture yet.</p>')
                    with gr.Row():
                        shown = screen("The picture")
                        differences = [screen("Where A and B differ, in red")] if two else []
                        labels = [] if two else [screen("Labels")]
                    if two:
                        with gr.Row():
                            labels = [screen(f"Labels of {one.letter}: {words(one)}") for one in self.networks]
                    chosen = gr.Dropdown(
                        classes, value=classes[-1], type="index", label="Probability of a class: dark 0, bright 1",
                        filterable=False, elem_id="class",
                    )  # fmt: skip
                    with gr.Row():
                        sure = [
                            screen(f"Probability by {one.letter}" if two else "Probability") for one in self.networks
                        ]
                        if not two:
                            gr.Column(min_width=240)  # so that the picture is as wide as those above
            outputs = [found, said, facts, shown, *labels, *differences, *sure]

            def on_pick(label: int, event: gr.SelectData) -> list[Any]:
                return self.picked(int(event.index), label)

            one_by_one = {"concurrency_id": "networks", "concurrency_limit": 1, "show_progress_on": [shown]}
            upload.upload(self.uploaded, [upload, chosen], outputs, api_name="labels", **one_by_one)
            gallery.select(on_pick, chosen, outputs, api_visibility="private", **one_by_one)
            chosen.change(self.probabilities, [found, chosen], sure, api_visibility="private", show_progress="hidden")
            if self.choices:
                first = gr.State(0)
                page.load(self.picked, [first, chosen], outputs, api_visibility="private", **one_by_one)
        local_only(upload)
        return page.queue(max_size=WAITING)


def enlarged(pixels: Array) -> Array:
    """A small picture (h, w, 3) with every pixel as a square, so that the longer side has at least half of ``WIDE``."""
    times = max(1, WIDE // max(pixels.shape[:2]))
    return pixels.repeat(times, 0).repeat(times, 1)


def words(network: Network) -> str:
    return f"{network.operator('down')} / {network.operator('up')}"


def screen(label: str) -> gr.Image:
    return gr.Image(label=label, interactive=False, format="png", buttons=["download", "fullscreen"], min_width=240)


def local_only(upload: gr.File) -> None:
    """Gradio would fetch a file that a client names by an address; this page takes files that were uploaded."""
    ours = upload.async_move_resource_to_block_cache

    async def moved(url_or_file_path: str | Path | None) -> str | None:
        if str(url_or_file_path).startswith(("http:", "https:")):
            raise gr.Error("the page takes files, no addresses", print_exception=False)
        return await ours(url_or_file_path)

    upload.async_move_resource_to_block_cache = moved


def readable(choices: Sequence[Choice]) -> tuple[list[Choice], list[Image.Image]]:
    """The choices that can be read, and a thumbnail of each; what cannot is said in the terminal."""
    kept, thumbnails = [], []
    for choice in choices:
        try:
            image = choice.read()
            step = max(1, min(image.size) // THUMBNAIL)
            small = to_rgb(image.rows(0, image.size[0])[::step, ::step])
        except (UserError, OSError) as error:
            print(f"not shown: {error}", flush=True)
            continue
        kept.append(choice)
        thumbnails.append(Image.fromarray(small))
    return kept, thumbnails
