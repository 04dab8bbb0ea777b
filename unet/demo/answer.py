"""What one or two networks say of a picture, kept as small as the page shows it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np

from unet.apply import PredictOptions, channels_fit
from unet.data.source import Array
from unet.demo.networks import Network
from unet.pictures import errors, to_rgb
from unet.prediction.one import bands
from unet.prediction.overlay import overlaid
from unet.prediction.reading import ImageReader

LONGEST = 1024
"""Pixels along the longer side of what is shown; of a larger picture every second, third, ... is."""
ROWS = 256
"""Read at once of what is shown."""
PROBABILITY = "viridis"


@dataclass(frozen=True)
class Said:
    """What a network said of a picture of H x W, of which h x w pixels are shown.

    Attributes:
        labels: (H, W) uint8.
        shares: of every class in the labels (K,), which add up to one.
        probabilities: (h, w, K) uint8, 255 for certain.
    """

    labels: Array
    shares: Array
    probabilities: Array


@dataclass(frozen=True)
class Answer:
    """A picture and what the networks said of it.

    Attributes:
        size: of the picture, H and W.
        step: every how many pixels one is shown.
        shown: (h, w, 3) uint8.
        said: by each network.
        seconds: that the networks took.
    """

    size: tuple[int, ...]
    step: int
    shown: Array
    said: list[Said]
    seconds: float

    def overlay(self, number: int, colors: Sequence[Sequence[int]]) -> Array:
        """The picture under the labels of one network, (h, w, 3) uint8."""
        return overlaid(self.shown, self.said[number].labels[:: self.step, :: self.step], colors)

    def probability(self, number: int, label: int) -> Array:
        """Where a network sees a class, dark for no and bright for yes, (h, w, 3) uint8."""
        found = matplotlib.colormaps[PROBABILITY](self.said[number].probabilities[..., label], bytes=True)
        return found[..., :3]

    @property
    def differing(self) -> float:
        """The share of pixels to which the two networks give different labels."""
        return float((self.said[0].labels != self.said[1].labels).mean())

    def differences(self) -> Array:
        """The picture dimmed, red where the networks differ: in any pixel of those that one shown stands for."""
        differs = self.said[0].labels != self.said[1].labels
        for axis in (0, 1):
            differs = np.logical_or.reduceat(differs, range(0, differs.shape[axis], self.step), axis)
        return errors(self.shown, np.zeros(differs.shape, np.uint8), differs.astype(np.uint8))


def answer(networks: Sequence[Network], image: ImageReader, how: PredictOptions) -> Answer:
    """Give a picture to every network, by tiles where it is large.

    Raises:
        UserError: a picture that a network cannot be given.
    """
    for network in networks:
        channels_fit(np.empty((0, image.channels)), network.model.net.in_channels)
    step = -(-max(image.size) // LONGEST)
    begin = time.perf_counter()
    said = [ask(network, image, how, step) for network in networks]
    seconds = time.perf_counter() - begin
    begins = range(0, image.size[0], ROWS)
    shown = [image.rows(row, min(row + ROWS, image.size[0]))[-row % step :: step, ::step] for row in begins]
    return Answer(image.size, step, to_rgb(np.concatenate(shown)), said, seconds)


def ask(network: Network, image: ImageReader, how: PredictOptions, step: int) -> Said:
    labels, seen = np.empty(image.size, np.uint8), []
    for begin, found, shares in bands(network.model, image, how, probabilities=True):
        labels[begin : begin + len(found)] = found
        assert shares is not None
        kept = shares[-begin % step :: step, ::step].astype(np.float32)
        seen.append((kept * 255).round().astype(np.uint8))
    counts = np.bincount(labels.ravel(), minlength=len(network.model.classes))
    return Said(labels, counts / labels.size, np.concatenate(seen))
