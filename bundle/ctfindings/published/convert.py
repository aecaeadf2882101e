"""From a published checkpoint to a bundle checkpoint on disk, with its source and licence and the embeddings of its
prompts.
"""

from __future__ import annotations

from pathlib import Path

import torch
from monai.bundle import ConfigParser

from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.networks.checkpoint import sha256_of
from bundle.ctfindings.published.checkpoint_conversion import Converted, PublishedModel, convert_checkpoint
from bundle.ctfindings.published.fvlm.tensor_map import fvlm
from bundle.ctfindings.published.radfinder.tensor_map import radfinder

_CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "networks"


def published_model(name: str) -> PublishedModel:
    """What is known of a published checkpoint, ``fvlm`` or ``radfinder``.

    Raises:
        ValueError: for another name.
    """
    known = {"fvlm": fvlm, "radfinder": radfinder}
    if name not in known:
        raise ValueError(f"model {name!r} is unknown; known are {', '.join(known)}")
    return known[name]()


def convert_to_bundle(
    name: str, checkpoint: str | Path, output: str | Path, text_encoder: str | None = None
) -> tuple[Converted, str]:
    """Converts a published checkpoint and writes it as a bundle checkpoint, whole or not at all.

    The file holds ``model`` (tensors by name), and ``source`` (model, paper, source, licence, file, sha256), plain text
    throughout.

    Args:
        name: ``fvlm`` or ``radfinder``.
        checkpoint: the published file or folder.
        output: file to write.
        text_encoder: folder or hub name of the text encoder, for its tokenizer; without one the prompts are not
            encoded.

    Returns:
        What was converted, and the SHA-256 of the file written.

    Raises:
        ValueError: when the checkpoint does not fit the model, no tokenizer is found, or the output cannot be written.
    """
    if Path(output).is_dir():
        raise ValueError(f"{output}: is a folder; name the file to write, such as models/{name}.pt")
    converted = convert_checkpoint(published_model(name), checkpoint)
    if text_encoder is not None:
        converted.state["bank.prompts"] = _prompts(name, converted, text_encoder)
    try:
        with atomic_path(output) as temporary:
            torch.save({"model": converted.state, "source": converted.source}, temporary)
    # A full disk is a RuntimeError of torch.save.
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise ValueError(
            f"{output}: cannot be written ({reason}); make room, or name a file in another folder"
        ) from error
    return converted, sha256_of(output)


def _prompts(name: str, converted: Converted, text_encoder: str) -> torch.Tensor:
    parser = ConfigParser()
    parser.read_config(_CONFIGS / f"{name}.json")
    parser["text_encoder"] = text_encoder
    classifier = parser.get_parsed_content("network_def")
    text = parser.get_parsed_content("text_tower")().eval()
    state = {key.removeprefix("text."): value for key, value in converted.state.items() if key.startswith("text.")}
    text.load_state_dict(state, assign=True)
    classifier.fill_prompts(text)
    prompts: torch.Tensor = classifier.bank.prompts
    return prompts
