"""SwAV with a queue in Lightning on several GPUs, or processes of a CPU.

python examples/pytorch_lightning_distributed/swav_queue.py [images [a checkpoint to go on from]]
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
    def __init__(self, sync_batch_norm: bool, **loss: Any):
        super().__init__()
        trunk = nn.Sequential(*list(resnet18().children())[:-1], nn.Flatten())
        head = api.PrototypeHead(
            512, hidden_dim=0, out_dim=128, num_prototypes=[50], batch_norm=True
        )
        self.model = api.SSLModel(trunk, {"prototypes": head})
        self.criterion = api.SwAVLoss.standalone(
            self.model, epsilon=0.03, freeze_prototypes_epochs=1, **loss
        )
        self.sync_batch_norm = sync_batch_norm

    def setup(self, stage: str) -> None:
        if self.sync_batch_norm:  # Lightning's own needs GPUs
            device = self.trainer.strategy.root_device
            api.synchronize_batch_norm(self.model, device=device)

    def training_step(self, batch: tuple[list[Tensor], Tensor, Tensor]) -> Tensor:
        loss = self.criterion(self.model(batch[0]), epoch=self.current_epoch)
        self.log("loss", loss, prog_bar=True, sync_dist=True)
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
    batch_size: int = 64,  # of each process
    queue_length: int = 768,  # over all processes
    queue_start_epoch: int = 2,  # the first embeddings age fast
    sync_batch_norm: bool = True,
    distributed_sinkhorn: bool = True,
    **options: Any,
) -> pl.Trainer:
    transform = api.multi_crop(data)  # of photographs, 2 x 224 and 6 x 96 pixels
    dataset = api.images(data, transform)  # or any set of torchvision with transform=transform
    loader = DataLoader(dataset, batch_size, shuffle=True, drop_last=True, num_workers=2)
    model = SwAV(
        sync_batch_norm,
        num_crops=transform.num_crops,
        batch_size=batch_size,
        over_ranks=distributed_sinkhorn,
        queue_length=queue_length,
        queue_start_epoch=queue_start_epoch,
    )
    trainer = pl.Trainer(**{"max_epochs": 10, "strategy": "ddp"} | options)
    trainer.fit(model, loader, ckpt_path=checkpoint)
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
