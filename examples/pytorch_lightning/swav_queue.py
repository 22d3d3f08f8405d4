"""SwAV with a queue as a Lightning module, for small batches; its checkpoints hold the queue.

python examples/pytorch_lightning/swav_queue.py [a folder of images [a checkpoint to go on from]]
"""

import sys
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18

from ssl_platform import api


class SwAV(pl.LightningModule):
    def __init__(self, num_crops: int, batch_size: int, queue_start_epoch: int):
        super().__init__()
        trunk = nn.Sequential(*list(resnet18().children())[:-1], nn.Flatten())
        head = api.PrototypeHead(
            512, hidden_dim=0, out_dim=128, num_prototypes=[50], batch_norm=True
        )
        self.model = api.SSLModel(trunk, {"prototypes": head})
        self.criterion = api.SwAVLoss.standalone(
            self.model,
            num_crops=num_crops,
            batch_size=batch_size,
            queue_length=6 * batch_size,
            queue_start_epoch=queue_start_epoch,
            epsilon=0.03,
            freeze_prototypes_epochs=1,
        )

    def training_step(self, batch: tuple[list[Tensor], Tensor, Tensor]) -> Tensor:
        loss = self.criterion(self.model(batch[0]), epoch=self.current_epoch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_after_backward(self) -> None:
        self.criterion.after_backward()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters())
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def main(
    data: str = "shapes",
    checkpoint: str | None = None,
    *,
    batch_size: int = 64,
    queue_start_epoch: int = 2,  # the first embeddings age fast
    **options: Any,
) -> pl.Trainer:
    transform = api.multi_crop(data)  # of photographs, 2 x 224 and 6 x 96 pixels
    dataset = api.images(data, transform)  # or any set of torchvision with transform=transform
    loader = DataLoader(dataset, batch_size, shuffle=True, drop_last=True, num_workers=2)
    model = SwAV(transform.num_crops, batch_size, queue_start_epoch)
    trainer = pl.Trainer(**{"max_epochs": 10, "devices": 1, "log_every_n_steps": 10} | options)
    trainer.fit(model, loader, ckpt_path=checkpoint)
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
