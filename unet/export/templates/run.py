"""Predict an image with this folder alone (numpy, Pillow, and onnxruntime or torch).

python run.py IMAGE LABELS [THRESHOLD]: the labels are written as an 8-bit grey PNG, or as .npy, with the class numbers.
With two classes and a threshold, the label is 1 where the probability of class 1 exceeds it.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

bundle = json.loads((Path(__file__).parent / "bundle.json").read_text(encoding="utf-8"))
model, spec, (source, target, *threshold) = (
    Path(__file__).parent / bundle["model"]["file"],
    bundle["input"],
    sys.argv[1:],
)
if source.endswith(".npy"):
    pixels = np.load(source)
else:
    try:
        image = Image.open(source)
    except OSError as error:
        sys.exit(f"{source}: cannot be read as an image ({error})")
    frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1  # an MPO has a preview as well
    if frames > 1:
        sys.exit(f"{source}: {frames} pages or frames; save one image, or an array with numpy.save")
    if spec["mode"] and image.mode.startswith(("I", "F")):
        sys.exit(f"{source}: more than 8 bits a channel; expected an 8-bit image")
    bits = max(getattr(image, "tag_v2", {}).get(258, (8,)))  # BitsPerSample of a TIFF
    if (";16" in str(image.tile) or bits > 8) and not image.mode.startswith(("I", "F")):
        sys.exit(f"{source}: 16 bits a channel, of which Pillow reads 8; save its pixels with numpy.save")
    shown = {"1": "L", "P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}
    pixels = np.asarray(image.convert(spec["mode"] or shown.get(image.mode, image.mode)))
axes = len(spec["total_stride"])
pixels = pixels[..., None] if pixels.ndim == axes else pixels
if pixels.ndim != axes + 1 or pixels.shape[-1] != spec["channels"]:
    sys.exit(f"{source}: shape {pixels.shape}; expected {axes} axes and {spec['channels']} channels, last")
if spec["size"] and list(pixels.shape[:-1]) != spec["size"]:
    sys.exit(f"{source}: size {pixels.shape[:-1]}; the network takes images of size {spec['size']} only")
with np.errstate(invalid="ignore"):
    batch = np.moveaxis(pixels, -1, 0)[None].astype(spec["dtype"])
if spec["dtype"] != "float32" and not np.array_equal(batch[0], np.moveaxis(pixels, -1, 0)):
    sys.exit(
        f"{source}: {pixels.dtype} values from {pixels.min()} to {pixels.max()} are no {spec['dtype']}; rescale it"
    )
if spec["range"] and not spec["range"][1] / 100 <= np.nanmax(pixels) <= spec["range"][1] * 10:
    print(
        f"warning: {source}: values up to {np.nanmax(pixels)}, but the network takes {spec['dtype']} up to "
        f"{spec['range'][1]}: the labels are likely to be wrong; rescale it",
        file=sys.stderr,
    )
if bundle["format"] == "onnx":
    import onnxruntime

    output = np.asarray(onnxruntime.InferenceSession(model).run(None, {spec["name"]: batch})[0])
else:
    import torch

    output = torch.export.load(model).module()(torch.from_numpy(batch)).detach().numpy()
if threshold and (bundle["output"]["name"] == "labels" or len(bundle["classes"]) != 2):
    sys.exit("a threshold needs two classes, and a bundle of probabilities (labels=false)")
if threshold:
    labels = output[0, 1] > float(threshold[0])
else:
    labels = output[0] if bundle["output"]["name"] == "labels" else output[0].argmax(0)
labels = labels.astype(np.uint8)
if target.endswith(".npy"):
    np.save(target, labels)
else:
    Image.fromarray(labels).save(target)
