"""Serve a Gradio page that shows the predicted labels of one or two networks, and where they differ."""

# pyright: reportMissingImports=false

import math
import os
import re
import signal
import tempfile
import time
from collections.abc import Sequence
from html import escape
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig

from unet import UNet, load
from unet.data.allowed_classes import check_targets
from unet.data.source import Array
from unet.errors import UserError
from unet.hardware import channels_last, select_device, to_memory_format
from unet.inference.image_values import check_channels
from unet.inference.options import PredictOptions
from unet.inference.segmenter import Segmenter
from unet.io.image_formats import NIFTI, SUFFIXES, name_parts
from unet.io.image_reader import ImageReader, ReadOptions, array_reader, open_image
from unet.io.run_folder import CHECKPOINTS, load_run_config
from unet.labels import IGNORE_INDEX, label_entropy
from unet.network.geometry import times
from unet.prediction.overlay import blend_labels
from unet.prediction.predict_file import predict_bands
from unet.prediction.predict_folder import error_message, list_images
from unet.runs.cli import as_checkpoints, program_name
from unet.visualization import draw_errors, to_rgb

MAX_SIDE, THUMBNAIL = 1024, 240
"""Sides of a displayed image in pixels; larger images are subsampled, smaller ones enlarged by an integer."""
MAX_SAMPLES, MAX_CANDIDATES = 12, 48
SUFFIXES_2D = SUFFIXES - NIFTI
STYLE = "#legend :is(table, tr, th, td) { border: 0 !important; padding: 2px 6px; overflow-wrap: anywhere; }"


def launch_demo(config: DictConfig) -> None:
    """Serve the page with the options of ``configs/demo.yaml`` until Ctrl-C or SIGTERM.

    Raises:
        UserError: a missing package, an unusable checkpoint, or a port in use.
    """
    import_gradio()
    paths = as_checkpoints(config.ckpt)
    networks = load_networks(paths, select_device(str(config.device), config.threads))
    limit, images = config.max_megapixels, config.images
    samples = run_samples(paths[0]) if images is None else folder_samples(str(images), limit, networks[0][1])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="unet-demo-") as os.environ["GRADIO_TEMP_DIR"]:  # uploads and results
        page = build_page(networks, samples, limit)
        print(f"{serve(page, str(config.host), config.port, config.max_upload_mb)} (stop with Ctrl-C)", flush=True)
        page.block_thread()


def import_gradio() -> Any:
    """Import Gradio with analytics turned off."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")  # the import sends a request
    try:
        import gradio
    except ImportError:
        raise UserError("the demo needs Gradio, which is not installed; run: pip install -e '.[demo]'") from None
    return gradio


def serve(page: Any, host: str, port: int, max_upload_mb: float) -> str:
    """Start the server in a thread and return its address; port 0 is the first free port from 7860."""
    theme = import_gradio().themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"))
    try:
        return page.launch(
            server_name=host, server_port=port or None, max_file_size=int(max_upload_mb * 2**20), share=False,
            show_error=True, quiet=True, prevent_thread_lock=True, theme=theme, css=STYLE, footer_links=[],
            run_history=False, enable_monitoring=False, ssr_mode=False, mcp_server=False, pwa=False,
        )[1]  # fmt: skip
    except OSError as error:
        raise UserError(f"host={host} port={port}: not available ({error}); choose another port or host") from None


def load_networks(paths: Sequence[Path], device: str) -> list[tuple[str, Segmenter]]:
    """Return the titles and networks of one or two checkpoints with 2 spatial axes and the same classes."""
    if not 1 <= len(paths) <= 2:
        raise UserError(f"ckpt: expected one checkpoint or two, found {len(paths)}")
    networks = []
    for letter, path in zip("AB", paths, strict=False):
        model = load(path).to(device)
        if model.net.spatial_dims != 2:
            kind = {1: "sequences", 3: "volumes"}[model.net.spatial_dims]
            raise UserError(
                f"{path}: a network for {kind}, the demo supports only images; use {program_name('predict')}"
            )
        to_memory_format(model, channels_last)
        name = "/".join(part for part in path.resolve().parts[-3:] if part != CHECKPOINTS)
        defaults, options = signature(UNet).parameters, model.description["model"]
        operators = [f"{key}={options.get(key, defaults[key].default)}" for key in ("down", "up")]
        title = re.sub(r"['\"]|(?<=[:,]) ", "", f"{name} {' '.join(operators)}")
        networks.append((f"{letter}: {title}" if len(paths) == 2 else title, model))
    first, last = networks[0][1].classes, networks[-1][1].classes
    if first != last:
        raise UserError(
            f"{paths[-1]} was trained for the classes {', '.join(last)}, but {paths[0]} for {', '.join(first)}; choose "
            f"networks with the same classes in the same order"
        )
    return networks


def open_limited(path: Path, max_megapixels: float, model: Segmenter) -> ImageReader:
    """Open an image like the command ``predict``; raise UserError before decoding one that is too large."""
    reading = ReadOptions.from_description(model.description)
    image = open_image(path, 2, reading, channels=model.net.in_channels)
    if math.prod(image.size) > max_megapixels * 1e6:
        message = f"{path}: {times(image.size)} pixels, more than max_megapixels={max_megapixels:g}"
        raise UserError(f"{message}; use {program_name('predict')}")
    return image


def folder_samples(images: str, max_megapixels: float, model: Segmenter) -> list[ImageReader]:
    """Return the first images of a folder or a pattern; print a message for each that cannot be read."""
    samples = []
    for path in [path for path in list_images(images, "images") if name_parts(path)[1] in SUFFIXES_2D][:MAX_SAMPLES]:
        try:
            image = open_limited(path, max_megapixels, model)
            image.rows(0, image.size[0])  # decodes it
            samples.append(image)
        except UserError as error:
            print(f"skipped: {error}", flush=True)
    return samples


def run_samples(checkpoint: Path) -> list[ImageReader]:
    """Return images of the test (or else val) split of a checkpoint's run, those with the highest label entropy.

    If the run's config or its data cannot be read, print a message and return no images.
    """
    try:
        settings = load_run_config(checkpoint.resolve().parents[1]).data.source
        if "gamma" in settings:
            settings.gamma = 1.0  # the network applies it
        check_targets(settings)
        source = instantiate(settings, _convert_="all")
        items = source.items.get("test") or source.items["val"]
        indices = np.unique(np.linspace(0, len(items) - 1, min(MAX_CANDIDATES, len(items))).astype(int))
        pairs = [(Path(items[index].name), *items[index].read()) for index in indices]
        counts = np.stack([np.bincount(mask.ravel(), minlength=256)[:IGNORE_INDEX] for _, _, mask in pairs])
        ranking = np.argsort(-label_entropy(counts), kind="stable")[:MAX_SAMPLES]
        return [array_reader(pairs[index][0], pairs[index][1]) for index in ranking]
    except Exception as error:
        message = " ".join(str(error.__cause__ or error).split())
        print(f"no sample images ({message}); choose some with images=FOLDER", flush=True)
        return []


def legend(classes: Sequence[str], colors: Sequence[Sequence[int]], labels: Sequence[Array] = ()) -> str:
    """Return an HTML table of the classes: color, name, and for each network the fraction of pixels."""
    fractions = [np.bincount(array.ravel(), minlength=len(classes)) / array.size for array in labels]
    headers = [f"share {letter}" for letter in "AB"] if len(labels) == 2 else ["share"] * len(labels)
    rows = "".join(f"<th>{header}</th>" for header in ("", "class", *headers))
    for k, (name, color) in enumerate(zip(classes, colors, strict=True)):
        swatch = f'<span style="padding: 0 8px; background: rgb({", ".join(str(int(c)) for c in color)})"></span>'
        cells = [swatch, escape(name), *(f"{fraction[k]:.1%}" for fraction in fractions)]
        rows += "</tr><tr>" + "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<table style='width: 100%'><tr>{rows}</tr></table>"


def resize(array: Array, size: int) -> Array:
    """Subsample an array (H, W, ...) or repeat its pixels, by an integer, so that it fits into ``size``."""
    step, repeats = -(-max(array.shape[:2]) // size), max(1, size // max(array.shape[:2]))
    return array[::step, ::step].repeat(repeats, 0).repeat(repeats, 1)


def predict_image(networks: Sequence[tuple[str, Segmenter]], image: ImageReader) -> list[Any]:
    """Return the outputs of the page: summary, legend, image, overlays and, for two networks, their difference."""
    start, labels, model, doubts = time.perf_counter(), [], networks[0][1], {}
    for _, network in networks:
        check_channels((*image.size, image.channels), network.description)
        bands = predict_bands(network, image, PredictOptions(), probabilities=False, warn=doubts.setdefault)
        labels.append(np.concatenate([band for _, band, _ in bands]))
    summary = f"<b>{escape(image.path.name)}</b>: {times(image.size[::-1])} pixels, {time.perf_counter() - start:.2f} s"
    picture = to_rgb(resize(image.rows(0, image.size[0]), MAX_SIDE))
    resized = [resize(array, MAX_SIDE) for array in labels]
    images = [picture, *(blend_labels(picture, array, model.colors) for array in resized)]
    if len(labels) == 2:
        summary += f"; A and B differ in <b>{(labels[0] != labels[1]).mean():.1%}</b> of the pixels"
        images.append(draw_errors(picture, *resized))
    summary += "".join(f"<br><b>warning</b>: {escape(message)}" for message in doubts)
    return [f"<p>{summary}</p>", legend(model.classes, model.colors, labels), *images]


def build_page(networks: Sequence[tuple[str, Segmenter]], samples: Sequence[ImageReader], max_megapixels: float) -> Any:
    """Return the page, a ``gr.Blocks``."""
    gr, model, two = import_gradio(), networks[0][1], len(networks) == 2

    def predict(path: Path, image: ImageReader | None = None) -> list[Any]:
        try:
            return predict_image(networks, image or open_limited(path, max_megapixels, model))
        except Exception as error:
            message = error_message(path, error).replace(str(path), path.name)  # without the folder on the server
            raise gr.Error(escape(message), duration=None, print_exception=False) from None

    def predict_sample(event: gr.SelectData) -> list[Any]:  # type: ignore[reportInvalidTypeForm]
        return predict(samples[event.index].path, samples[event.index])

    def add_image(title: str) -> Any:
        return gr.Image(label=title, interactive=False, format="png", buttons=["download", "fullscreen"], min_width=400)

    with gr.Blocks(title="U-Net demo", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown("# U-Net demo\nUpload an image or pick one to see the most probable class of every pixel.")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                upload = gr.File(label="Upload an image", file_types=sorted(SUFFIXES_2D), height=120, elem_id="upload")
                gallery = gr.Gallery(
                    [to_rgb(resize(image.rows(0, image.size[0]), THUMBNAIL)) for image in samples], label="Or pick one",
                    columns=2, height=300, object_fit="cover", allow_preview=False, interactive=False, buttons=[],
                    visible=bool(samples), elem_id="samples",
                )  # fmt: skip
                class_legend = gr.HTML(legend(model.classes, model.colors), elem_id="legend")
            with gr.Column(scale=3, min_width=320):
                gr.Markdown("  \n".join(f"`{title}`" for title, _ in networks))
                summary = gr.HTML("<p>No image yet.</p>", elem_id="summary")
                with gr.Row():
                    titles = ["Labels A", "Labels B", "Difference of A and B, in red"] if two else ["Labels"]
                    images = [add_image(title) for title in ("Image", *titles)]
        outputs = [summary, class_legend, *images]
        options = {"concurrency_id": "networks", "concurrency_limit": 1, "show_progress_on": images}
        upload.upload(lambda path: predict(Path(path)), upload, outputs, api_name="predict", **options)
        gallery.select(predict_sample, None, outputs, api_visibility="private", **options)
        if samples:
            page.load(lambda: predict(samples[0].path, samples[0]), None, outputs, **options)
    return page.queue(max_size=16)
