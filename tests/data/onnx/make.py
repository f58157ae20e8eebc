"""Make the ONNX files beside this one again: `PYTHONPATH=. python tests/data/onnx/make.py`.

They are what `torch.onnx.export` writes, by the exporter of TorchScript (`-script`) and the one of torch.export
(`-dynamo`), so that the tests read real exports without needing torch. Needs torch, onnx and onnxscript.
"""

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

HERE = Path(__file__).parent


class Normalising(nn.Module):
    """Statistics of very different scale, as a VecNormalize around a policy has them."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy
        self.register_buffer("mean", torch.tensor([0.0, 1.0, 50.0, -3000.0, 0.02]))
        self.register_buffer("std", torch.tensor([1.0, 0.1, 20.0, 1000.0, 0.003]))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.policy(torch.clamp((observation - self.mean) / self.std, -10.0, 10.0))


class Scaled(nn.Module):
    """An action of a policy in [-1, 1] or [0, 1] in the units of its environment."""

    def __init__(self, policy: nn.Module, scale: tuple[float, ...], shift: tuple[float, ...]) -> None:
        super().__init__()
        self.policy = policy
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("shift", torch.tensor(shift))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.policy(observation) * self.scale + self.shift


class Clipped(nn.Module):
    """A Gaussian policy's mean, clipped to the action bounds."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.clamp(self.policy(observation), -0.4, 0.4)


class Choice(nn.Module):
    """The best of a DQN's values."""

    def __init__(self, values: nn.Module) -> None:
        super().__init__()
        self.values = values

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.values(observation).argmax(dim=1)


class Frames(nn.Module):
    """The Nature CNN (Mnih et al. 2015) shrunk, on bytes; channels last, as environments give them, if `permuted`."""

    def __init__(self, side: int, *, permuted: bool) -> None:
        super().__init__()
        self.permuted = permuted
        self.convolutions = nn.Sequential(
            nn.Conv2d(4, 4, 8, stride=4), nn.ReLU(), nn.Conv2d(4, 6, 4, stride=2), nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        with torch.no_grad():
            features = self.convolutions(torch.zeros(1, 4, side, side)).shape[1]
        self.head = nn.Sequential(nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, 6))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        if self.permuted:
            frames = frames.permute(0, 3, 1, 2)
        return self.head(self.convolutions(frames.float() / 255.0))


def mlp(inputs: int, outputs: int, activation: type[nn.Module], last: type[nn.Module] = nn.Identity) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, 24), activation(), nn.Linear(24, 24), activation(), nn.Linear(24, outputs), last()
    )


def main() -> None:
    torch.manual_seed(0)
    vector = torch.zeros(1, 5)
    models = {
        "tanh": (mlp(5, 2, nn.Tanh), vector),
        "sac": (mlp(5, 2, nn.ReLU, nn.Tanh), vector),
        "normalising": (Normalising(mlp(5, 2, nn.Tanh)), vector),
        "sigmoid": (mlp(5, 2, nn.ReLU, nn.Sigmoid), vector),
        "scaled": (Scaled(mlp(5, 2, nn.ReLU, nn.Tanh), (2.0, 0.25), (0.0, 0.75)), vector),
        "clipped": (Clipped(mlp(5, 2, nn.Tanh)), vector),
        "values": (mlp(5, 4, nn.ReLU), vector),
        "choice": (Choice(mlp(5, 4, nn.ReLU)), vector),
        "frames": (Frames(36, permuted=False), torch.zeros(1, 4, 36, 36, dtype=torch.uint8)),
        "frames-last": (Frames(36, permuted=True), torch.zeros(1, 36, 36, 4, dtype=torch.uint8)),
    }
    for name, (model, example) in models.items():
        model.eval()
        with torch.no_grad():
            for parameter in model.parameters():
                # Larger than torch begins with, so that outputs reach the bounds, and with biases that matter.
                parameter.mul_(2.0)
        common = {"input_names": ["observation"], "output_names": ["action"]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, (example,), str(HERE / f"{name}-script.onnx"), dynamo=False,
                dynamic_axes={"observation": {0: "batch"}}, **common,
            )  # fmt: skip
            torch.onnx.export(
                model, (example,), str(HERE / f"{name}-dynamo.onnx"), dynamo=True, external_data=False,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), **common,
            )  # fmt: skip
        for file in HERE.glob(f"{name}-*.onnx"):
            forget_where_it_was_made(file)


def forget_where_it_was_made(file: Path) -> None:
    """Takes out what the exporters note down for debugging: stack traces, with the folders of this machine."""
    exported = onnx.load(file)
    for part in (exported, exported.graph, *exported.graph.node, *exported.graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for part in (*exported.graph.input, *exported.graph.output, *exported.graph.initializer):
        part.ClearField("metadata_props")
    onnx.save(exported, file)


if __name__ == "__main__":
    main()
