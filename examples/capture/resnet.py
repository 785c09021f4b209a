"""ResNet-50 (He et al., arXiv:1512.03385) on 224 x 224 images: 4.1 billion multiply-adds, 25.6 million weights.

    sapper capture examples/capture/resnet.py
    sapper predict train resnet.workload.json --on "8x h100-sxm,8x ascend-910b2" --global-batch 2048
"""

from torch.nn import functional

import torch
from torch import nn


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1; the stride is in the 3x3, as all frameworks have it."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = 4 * width
        self.conv1, self.norm1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.short = None
        if stride != 1 or inputs != outputs:
            self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        return functional.relu(self.norm3(self.conv3(y)) + (x if self.short is None else self.short(x)))


class ResNet(nn.Module):
    def __init__(self, depths=(3, 4, 6, 3), classes=1000):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        stages, inputs = [], 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            blocks = []
            for index in range(depth):
                blocks.append(Bottleneck(inputs, width, 2 if stage and not index else 1))
                inputs = 4 * width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images):
        return self.head(self.stages(self.stem(images)).mean((2, 3)))


def build(batch):
    labels = torch.zeros(batch, dtype=torch.long)
    return ResNet(), torch.zeros(batch, 3, 224, 224), lambda logits: functional.cross_entropy(logits.float(), labels)
