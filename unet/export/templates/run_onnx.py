"""Labels of an image, by this folder alone: python run.py IMAGE LABELS (onnxruntime, numpy and Pillow)."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

bundle = json.loads((Path(__file__).parent / "bundle.json").read_text(encoding="utf-8"))
takes, (source, target) = bundle["input"], sys.argv[1:]
image = None if source.endswith(".npy") else Image.open(source)
pixels = np.load(source) if image is None else np.asarray(image.convert("RGB") if takes["channels"] == 3 else image)
pixels = pixels.reshape(*pixels.shape[: len(takes["total_stride"])], takes["channels"]).astype(takes["dtype"])
session = onnxruntime.InferenceSession(Path(__file__).parent / bundle["model"]["file"])
output = np.asarray(session.run(None, {takes["name"]: np.moveaxis(pixels, -1, 0)[None]})[0])
labels = (output[0] if bundle["output"]["name"] == "labels" else output[0].argmax(0)).astype(np.uint8)
if target.endswith(".npy"):
    np.save(target, labels)
else:
    image = Image.fromarray(labels)
    image.putpalette(np.uint8(bundle["colors"]).tobytes())
    image.save(target)
