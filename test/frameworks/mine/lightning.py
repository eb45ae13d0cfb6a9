import lightning
import torch
from torch_network import WIDTH, sample  # noqa: F401
from torch_network import Network as Plain


class Network(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.plain = Plain()

    def forward(self, rows):
        return self.plain(rows)

    def training_step(self, batch):
        return self.plain(*batch)["loss"]

    def validation_step(self, batch):
        self.log("loss", self.plain(*batch)["loss"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


rows = torch.utils.data.TensorDataset(torch.ones(160, WIDTH), torch.zeros(160))
train_loader = torch.utils.data.DataLoader(rows, batch_size=8)
test_loader = torch.utils.data.DataLoader(rows, batch_size=160)
