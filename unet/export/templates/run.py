"""Predict an image with this folder alone: python run.py IMAGE LABELS (numpy, Pillow, and onnxruntime or torch)."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

bundle = json.loads((Path(__file__).parent / "bundle.json").read_text(encoding="utf-8"))
model, spec, (source, target) = Path(__file__).parent / bundle["model"]["file"], bundle["input"], sys.argv[1:]
image = None if source.endswith(".npy") else Image.open(source)
pixels = np.load(source) if image is None else np.asarray(image.convert("RGB") if spec["channels"] == 3 else image)
pixels = pixels.reshape(*pixels.shape[: len(spec["total_stride"])], spec["channels"]).astype(spec["dtype"])
batch = np.moveaxis(pixels, -1, 0)[None].copy()
if bundle["format"] == "onnx":
    import onnxruntime

    output = np.asarray(onnxruntime.InferenceSession(model).run(None, {spec["name"]: batch})[0])
else:
    import torch

    output = torch.export.load(model).module()(torch.from_numpy(batch)).detach().numpy()
labels = (output[0] if bundle["output"]["name"] == "labels" else output[0].argmax(0)).astype(np.uint8)
if target.endswith(".npy"):
    np.save(target, labels)
else:
    image = Image.fromarray(labels)
    image.putpalette(np.uint8(bundle["colors"]).tobytes())
    image.save(target)
