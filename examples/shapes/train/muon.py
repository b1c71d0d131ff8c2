"""Muon: momentum made orthogonal, for matrices of hidden layers. Matrices of one shape are worked on together."""
import torch


def orthogonal(update, dtype, steps=5):
    """The nearest (semi-)orthogonal matrices, roughly: Newton-Schulz on [n, rows, columns]; bfloat16 is enough for it."""
    a, b, c = 3.4445, -4.7750, 2.0315
    is_tall = update.shape[1] > update.shape[2]
    x = (update.transpose(1, 2) if is_tall else update).to(dtype)
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return (x.transpose(1, 2) if is_tall else x).to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Steps are scaled to the size of AdamW's, so that both take one learning rate. A matrix of several stacked ones
    (`in_proj_weight`) is named in `stacked` with their number; `dtype` is that of the products."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.01, stacked=None, dtype=torch.bfloat16):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.stacked, self.dtype = stacked or {}, dtype

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                direction = p.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                parts = direction.chunk(self.stacked.get(p, 1))
                shapes.setdefault(parts[0].shape, []).append((p, parts))
            for (rows, columns), entries in shapes.items():
                updates = orthogonal(torch.stack([part for _, parts in entries for part in parts]), self.dtype)
                updates = updates * (0.2 * max(rows, columns) ** 0.5)
                at = 0
                for p, parts in entries:
                    update = updates[at:at + len(parts)].flatten(0, 1).view(p.shape)
                    at += len(parts)
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])
