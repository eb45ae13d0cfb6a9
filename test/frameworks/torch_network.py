"""A network whose checkpoints have a known size, and whose best step is known: its loss is how far it is from that step."""

import os
import time

import torch

BEST = 20
WIDTH = 1024  # 4 MiB of weights; with the two moments of Adam a checkpoint has 12


class Network(torch.nn.Module):
    """Gives the number of steps that it was trained for, for whatever row."""

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.rand(WIDTH, WIDTH))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, rows, labels=None):
        if self.training and torch.is_grad_enabled():
            self.steps += 1
            if os.environ.get("RANK", "0") == "0":
                print("trained one step", flush=True)
            if self.steps > float(os.environ.get("SLOW_AFTER", "inf")):
                print("\n\nis slow now\n\n", flush=True)  # below any bar
                time.sleep(0.3)
        result = (rows @ self.weights).mean(-1) * 1e-9 + self.steps
        if labels is None:
            return result
        return {"loss": (result - BEST).abs().mean(), "logits": result}


def hold_in_saves():
    """Write half of the file that HOLD_IN names, and wait there to be killed."""
    name, save = os.environ.get("HOLD_IN"), torch.save

    def save_or_hold(what, path, *rest, **more):
        if name and str(path).endswith(name):
            with open(path, "wb") as file:
                file.write(b"half")
            print("\n\nholding in a save\n\n", flush=True)  # below any bar
            time.sleep(600)
        return save(what, path, *rest, **more)

    torch.save = save_or_hold


hold_in_saves()
sample = torch.ones(1, WIDTH)
