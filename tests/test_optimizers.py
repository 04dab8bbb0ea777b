"""Optimizers: orthogonal updates of kernels by Muon, its state and its groups; SGD; resuming with each."""

import copy

import pytest
import torch

from unet import DOWN, UP, UNet
from unet.task.optimizers import OPTIMIZERS, POLYNOMIALS, Muon, is_kernel, orthogonalize
from unet.task.parameters import parameter_groups
from unet.training.train import train

SETTINGS = {"lr": 0.1, "weight_decay": 0.5}


def gradients(net: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter a random gradient."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def small_network() -> UNet:
    torch.manual_seed(0)
    return UNet(width=4, depth=1, num_classes=3)


def muon(net: UNet) -> Muon:
    return Muon(parameter_groups(net, 0.1, None, (), separate_kernels=True), **SETTINGS)


def test_singular_values_from_a_hundredth_of_the_norm_are_brought_near_one():
    values = torch.logspace(-2, 0, 1000, dtype=torch.float64)
    for a, b, c in POLYNOMIALS:
        values = a * values + b * values**3 + c * values**5
    assert values.min() > 0.725 and values.max() < 1.275


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16), (1, 9)])
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_orthogonalize_keeps_the_directions_and_evens_the_singular_values(shape, native, scale, monkeypatch):
    monkeypatch.setattr("unet.task.optimizers.native_bf16", lambda device: native)
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(0.1, 1, min(shape))
    result = orthogonalize(scale * left @ values.diag() @ right)
    assert result.dtype == torch.float32 and result.shape == shape
    along = left.T @ result @ right.T
    accuracy = 0.08 if native else 1e-3
    assert (along.diag() - 1).abs().max() < 0.28 + accuracy
    assert (along - along.diag().diag()).abs().max() < accuracy


def test_the_update_of_zero_gradients_is_finite_and_only_decays_the_weights():
    net = small_network()
    before = copy.deepcopy(net.state_dict())
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    muon(net).step()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.data, before[name] * (1 - 0.1 * 0.5))


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_kernel_moves_by_the_orthogonal_gradient_and_others_as_adamw_moves_them(channels_last):
    net, plain = small_network(), small_network()
    if channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = copy.deepcopy(net.state_dict())
    gradients(net)
    gradients(plain)
    adamw = torch.optim.AdamW(plain.parameters(), **SETTINGS)
    optimizer = muon(net)
    for _ in range(2):
        optimizer.step()
        adamw.step()
    expected = dict(plain.named_parameters())
    kernels = [name for name in expected if is_kernel(net, name)]
    assert len(kernels) == 2 * 3 + 1 and "head.weight" not in kernels
    for name, parameter in net.named_parameters():
        if name not in kernels:
            torch.testing.assert_close(parameter, expected[name])
            continue
        rows = len(parameter)
        size = max(rows, parameter.numel() // rows)
        # The gradient is the same twice, so both updates are its orthogonal matrix.
        update = orthogonalize(parameter.grad.movedim(1, -1).flatten(1))
        update = update.unflatten(1, (*parameter.shape[2:], parameter.shape[1])).movedim(-1, 1)
        value = before[name]
        for _ in range(2):
            value = value * (1 - 0.1 * 0.5) - 0.1 * 0.2 * size**0.5 * update
        torch.testing.assert_close(parameter.data, value, atol=0.02, rtol=0.02)


def test_a_closure_sees_all_groups_and_its_gradients_are_used():
    nets = [small_network(), small_network()]
    first, second = map(muon, nets)
    image = torch.randn(2, 3, 32, 32)

    def closure() -> torch.Tensor:
        first.zero_grad()
        loss = nets[0](image).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        loss = first.step(closure)
        second.zero_grad()
        expected = nets[1](image).square().mean()
        expected.backward()
        second.step()
        assert torch.equal(loss, expected)
    for ours, plain in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(ours, plain)


def test_a_loaded_state_continues_exactly():
    nets = [small_network(), small_network()]
    first, second = map(muon, nets)
    gradients(nets[0])
    first.step()
    nets[1].load_state_dict(nets[0].state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for net, optimizer in zip(nets, (first, second), strict=True):
        gradients(net, seed=1)
        optimizer.step()
    for ours, loaded in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(ours, loaded)


def test_a_step_that_is_not_finite_changes_no_kernel_beyond_the_finite_momentum():
    net = small_network()
    optimizer = muon(net)
    gradients(net)
    for parameter in net.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(float("nan"))
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    for group in optimizer.param_groups:
        if group["kernels"]:
            for kernel in group["params"]:
                with torch.no_grad():
                    optimizer.update_kernel(kernel, kernel.grad, 0.1, 0.0)
                assert kernel.isfinite().all() and optimizer.state[kernel]["momentum"].isfinite().all()


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize(("down", "up"), [*((down, "transposed") for down in DOWN), *(("max", up) for up in UP)])
def test_every_network_takes_finite_steps(spatial_dims, down, up):
    if up == "bicubic" and spatial_dims != 2:
        pytest.skip("bicubic is for two axes")
    torch.manual_seed(0)
    net = UNet(width=4, depth=1, down=down, up=up, spatial_dims=spatial_dims)
    optimizer = muon(net)
    loss = net(torch.randn(2, 3, *[32, 32, 16][:spatial_dims])).square().mean()
    loss.backward()
    before = [parameter.clone() for parameter in net.parameters()]
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    names = [name for name, parameter in net.named_parameters() if parameter.grad is not None]
    moved = [not torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True)]
    assert sum(moved) >= len(names) - 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains_and_resumes_exactly(composed, tmp_path, name: str):
    settings = [f"optim.name={name}", "optim.lr=0.01", "optim.schedule=constant"]
    whole = train(composed(*settings, "trainer.max_epochs=2"), tmp_path / "whole")
    train(composed(*settings, "trainer.max_epochs=1"), tmp_path / "parts")
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    parts = train(composed(*settings, "trainer.max_epochs=2", f"ckpt_path={last}"), tmp_path / "parts")
    assert parts["test/miou"] == whole["test/miou"] and parts["steps"] == whole["steps"]
    paths = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("whole", "parts")]
    first, second = (torch.load(path)["state_dict"] for path in paths)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_sgd_moves_along_the_gradient_with_nesterov_momentum():
    value = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = OPTIMIZERS["sgd"]([{"params": [value]}], lr=0.1, weight_decay=0.0, betas=[0.5, 0.9], fused=None)
    for _ in range(2):
        value.grad = torch.tensor([1.0])
        optimizer.step()
    assert value.item() == pytest.approx(1 - 0.1 * (1 + 0.5) - 0.1 * (1 + 0.5 * 1.5))
