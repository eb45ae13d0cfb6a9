import torch
from torch_network import WIDTH, Network, sample  # noqa: F401

network = Network()
optimizer = torch.optim.Adam(network.parameters())
rows = torch.utils.data.TensorDataset(torch.ones(960, WIDTH), torch.zeros(960))
