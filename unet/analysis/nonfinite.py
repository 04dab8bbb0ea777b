"""Finding the first layer that made a number that is none."""

import torch
from torch import Tensor, nn


def is_finite(value: object) -> bool:
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())


def first_nonfinite(net: nn.Module, image: Tensor) -> str:
    """Say where NaN or infinity first appears when ``net`` sees ``image``; called only once a loss is not finite."""
    if not is_finite(image):
        return "the input image itself holds NaN or infinite values"
    for name, parameter in net.named_parameters():
        if not is_finite(parameter):
            return f"the parameter {name} is not finite (an earlier update made it so)"
    found: list[str] = []

    def hook(name: str):
        def look(module: nn.Module, inputs: tuple, output: object) -> None:
            if not found and not is_finite(output):
                found.append(f"the first layer with a non-finite output is {name} ({type(module).__name__})")

        return look

    leaves = [(name, module) for name, module in net.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(hook(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            net(image)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "every layer's output is finite: the loss itself is not"
