"""The options of a prediction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unet.errors import UserError
from unet.inference.tiling import check_tile

PRECISIONS = ("auto", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class PredictOptions:
    """The options of :meth:`unet.inference.segmenter.Segmenter.predict`."""

    tile: Sequence[int] | None = None
    overlap: float | None = None
    tta: bool = False
    batch: int = 1
    precision: str = "auto"
    transforms: bool = True
    threshold: float | None = None
    strict: bool = False
    temperature: float = 1.0

    def check(self, spatial_dims: int) -> None:
        """Raise UserError, naming the option, for an invalid value."""
        check_tile(self.tile, 0.0 if self.overlap is None else self.overlap, spatial_dims, prefix="")
        if not isinstance(self.batch, int) or isinstance(self.batch, bool) or self.batch < 1:
            raise UserError(f"batch: expected an integer of at least 1, found {self.batch!r}")
        if self.precision not in PRECISIONS:
            raise UserError(f"precision: expected one of {', '.join(PRECISIONS)}, found {self.precision!r}")
        is_number = isinstance(self.temperature, int | float) and not isinstance(self.temperature, bool)
        if not is_number or not 0 < self.temperature < math.inf:
            raise UserError(f"temperature: expected a number above 0, found {self.temperature!r}")
        if self.threshold is not None:
            number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
            if not number or not 0 < self.threshold < 1:
                raise UserError(f"threshold: expected null or a number between 0 and 1, found {self.threshold!r}")
