"""Conversion of a published checkpoint file to a bundle checkpoint file."""

import json
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import cast

import torch
from monai.bundle import ConfigParser
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.networks.checkpoint import compact, load_mapped, sha256_of
from bundle.ctfindings.published.checkpoint_format import Converted, PublishedCheckpoint, convert_tensors

_CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "networks"

MODELS = ("fvlm", "radfinder", "astra", "merlin")


def published_checkpoint(name: str) -> PublishedCheckpoint:
    """The checkpoint format of one of ``MODELS``; ``ValueError`` for another name."""
    if name in ("astra", "merlin"):
        from bundle.ctfindings.published.astra.checkpoint import astra_checkpoint

        return astra_checkpoint(name)
    if name == "fvlm":
        from bundle.ctfindings.published.fvlm.checkpoint import fvlm_checkpoint

        return fvlm_checkpoint()
    if name == "radfinder":
        from bundle.ctfindings.published.radfinder.checkpoint import radfinder_checkpoint

        return radfinder_checkpoint()
    raise ValueError(f"unknown model {name!r}; expected one of {', '.join(MODELS)}")


def convert_to_bundle(
    name: str, checkpoint: str | Path | None, output: str | Path, text_encoder: str | None = None
) -> tuple[Converted, str]:
    """Converts a published checkpoint, writes it as a bundle checkpoint, and returns it with the SHA-256 of the file.

    Args:
        name: One of ``MODELS``.
        checkpoint: Published file or folder, see ``convert_checkpoint``; None for the installed package of Astra or
            Merlin.
        output: File to write, completely or not at all. Its ``model`` is the ``state`` of ``Converted``. The same
            published file always gives the same bytes.
        text_encoder: Folder or hub name of the text encoder, for its tokenizer. Without it the prompts are not encoded.

    Raises:
        ValueError: The checkpoint does not fit the model, there is no tokenizer, or the output cannot be written.
    """
    if Path(output).is_dir():
        raise ValueError(f"{output}: expected a file, found a folder; name the file to write, such as models/{name}.pt")
    if checkpoint is None:
        if name not in ("astra", "merlin"):
            raise ValueError(f"{name}: expected the downloaded checkpoint; give its path")
        from bundle.ctfindings.published.astra.checkpoint import installed_weights

        checkpoint = installed_weights(name)
    converted = convert_checkpoint(published_checkpoint(name), checkpoint)
    if text_encoder is not None:
        converted.state["bank.prompts"] = _prompts(name, converted, text_encoder)
    try:
        # Into an open file: PyTorch writes the name of a path into the file, and that of the partial file is random.
        with atomic_path(output) as temporary, temporary.open("wb") as file:
            # The larger models use the tensors of the file as they are.
            state = compact(converted.state) if name in ("astra", "merlin") else converted.state
            torch.save({"model": state, "source": converted.source}, file)
    except (OSError, RuntimeError) as error:  # RuntimeError: the disk is full.
        reason = " ".join(str(error).split())[:150]
        raise ValueError(f"{output}: cannot be written ({reason}); free some space or use another folder") from error
    return converted, sha256_of(output)


def convert_checkpoint(checkpoint: PublishedCheckpoint, path: str | Path) -> Converted:
    """Converts a published file of ``torch.save``, safetensors file or folder of them; nothing in it is executed.

    ValueError if the file cannot be read, or its tensors do not fit; see ``convert_tensors``.
    """
    files = _files(Path(path))
    converted = convert_tensors(checkpoint, _read(files, Path(path)), path)
    hashes = {"file": ", ".join(file.name for file in files), "sha256": ", ".join(sha256_of(file) for file in files)}
    converted.source.update(hashes)
    return converted


def _prompts(name: str, converted: Converted, text_encoder: str) -> Tensor:
    parser = ConfigParser()
    parser.read_config(_CONFIGS / f"{name}.json")
    parser["text_encoder"] = text_encoder
    classifier = parser.get_parsed_content("network_def")
    text = parser.get_parsed_content("text_tower")().eval()
    state = {key.removeprefix("text."): value for key, value in converted.state.items() if key.startswith("text.")}
    text.load_state_dict(state, assign=True)
    classifier.fill_prompts(text)
    return cast(Tensor, classifier.bank.prompts)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: file not found; give the downloaded checkpoint")
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        if files := sorted(path.glob("*.safetensors")):
            return files
        raise ValueError(f"{path}: contains no .safetensors file; give the download folder or the checkpoint file")
    try:
        named = {path / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index}: not the index of a sharded checkpoint; download it again") from error
    missing = sorted(file.name for file in named if not file.is_file())
    if missing:
        raise ValueError(f"{path}: missing {', '.join(missing)}, named in its index; download it again")
    return sorted(named)


def _read(files: Sequence[Path], path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            content = load_file(file) if file.suffix == ".safetensors" else load_mapped(file)
            state = content.get("model", content.get("state_dict", content))
            tensors.update(state if isinstance(state, dict) else {})
        except UnpicklingError as error:
            problem = "contains more than tensors and plain values; not read, because that could run code"
            raise ValueError(f"{file}: {problem}. Ask its authors for the tensors alone") from error
        except (SafetensorError, RuntimeError, OSError, EOFError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"{file}: cannot be read as a checkpoint; download it again") from error
    if not tensors or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()):
        raise ValueError(f"{path}: contains no tensors under 'model'; give the downloaded checkpoint")
    return tensors
