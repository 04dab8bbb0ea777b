"""Find the first layer whose output is NaN or infinite."""

import torch
from torch import Tensor, nn


def is_finite(value: object) -> bool:
    """Return whether a value is no tensor, or a tensor of finite numbers."""
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())


def first_nonfinite(net: nn.Module, image: Tensor) -> str:
    """Return a message that names the first layer whose output for ``image`` is not finite."""
    if not is_finite(image):
        return "the input image contains NaN or infinite values"
    for name, parameter in net.named_parameters():
        if not is_finite(parameter):
            return f"the parameter {name} is not finite after an earlier optimizer step"
    messages: list[str] = []
    names = {module: name for name, module in net.named_modules()}

    def hook(module: nn.Module, inputs: tuple, output: object) -> None:
        if not messages and not is_finite(output):
            messages.append(f"the first layer with a non-finite output is {names[module]} ({type(module).__name__})")

    handles = [module.register_forward_hook(hook) for module in names if not any(module.children())]
    try:
        with torch.no_grad():
            net(image)
    finally:
        for handle in handles:
            handle.remove()
    return messages[0] if messages else "the output of every layer is finite, the loss itself is not"
