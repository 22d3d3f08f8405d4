"""SwAV in a plain PyTorch loop: python examples/pytorch/swav.py [a folder of images]"""

import sys
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18

from ssl_platform import api


def main(
    data: str = "shapes",
    *,
    trunk: nn.Module | None = None,
    dim: int = 512,
    batch_size: int = 128,
    epochs: int = 10,
    **changes: Any,
) -> api.SSLModel:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trunk = trunk or nn.Sequential(*list(resnet18().children())[:-1], nn.Flatten())
    head = api.PrototypeHead(dim, hidden_dim=0, out_dim=128, num_prototypes=[50], batch_norm=True)
    model = api.SSLModel(trunk, {"prototypes": head}).to(device)

    transform = api.multi_crop(data)  # of photographs, 2 x 224 and 6 x 96 pixels
    dataset = api.images(data, transform, **changes)  # or any set of torchvision with transform=...
    loader = DataLoader(dataset, batch_size, shuffle=True, drop_last=True, num_workers=2)

    criterion = api.SwAVLoss.standalone(
        model,
        num_crops=transform.num_crops,
        batch_size=batch_size,
        epsilon=0.03,
        freeze_prototypes_epochs=1,  # learned at once, they can drive the loss to ln 50
    )
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, epochs * len(loader), pct_start=0.1
    )
    for epoch in range(epochs):
        total = 0.0
        for crops, _, _ in loader:
            loss = criterion(model([crop.to(device) for crop in crops]), epoch=epoch)
            optimizer.zero_grad()
            loss.backward()
            criterion.after_backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch}: loss {total / len(loader):.4f}")
        torch.save([part.state_dict() for part in (model, criterion, optimizer)], "swav.pt")
    return model


if __name__ == "__main__":
    main(*sys.argv[1:])
