"""Text towers of published models: their tokens, and the tokenizers they accept."""

import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertTokenizer

from bundle.ctfindings.published.fvlm.text_tower import fvlm_text_tower
from bundle.ctfindings.published.radfinder.text_tower import radfinder_text_tower
from bundle.ctfindings.published.text_tower import PublishedTextTower


@pytest.fixture(scope="module")
def cxr_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as CXR-BERT's: a vocabulary, and a configuration that names classes of remote code."""
    folder = tmp_path_factory.mktemp("cxr_bert")
    characters = list(string.ascii_lowercase + string.punctuation)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{character}" for character in characters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    remote = {"tokenizer_class": "CXRBertTokenizer", "auto_map": {"AutoTokenizer": ["remote.CXRBertTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(remote))
    (folder / "remote.py").write_text("raise RuntimeError('remote code was run')")
    return str(folder)


def test_the_text_of_fvlm_is_the_first_token_without_token_types(cxr_bert: str) -> None:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 200,
    }
    tower = fvlm_text_tower(cxr_bert, **sizes).eval()
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    tower.trunk.embeddings.token_type_embeddings.weight.data.zero_()
    texts = ["Not Emphysema.", "a", "Nodule."]
    with torch.no_grad():
        together = tower(texts, "prompt")
        apart = torch.cat([tower([text], "prompt") for text in texts])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    with pytest.raises(ValueError, match="role 'poem' is unknown"):
        tower(texts, "poem")


@pytest.mark.parametrize("make", [fvlm_text_tower, radfinder_text_tower])
def test_a_folder_without_a_tokenizer_is_refused(make: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tokenizer found; set text_encoder to the folder with"):
        make(str(tmp_path / "nowhere"))


def test_a_name_without_a_vocabulary_is_not_taken_for_another_encoder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As on the command line, where the name of a folder that is not there could be one of the hub.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"^cxr_bert: no tokenizer found; set text_encoder to the folder with vocab\.txt of CXR-BERT"
    ):
        fvlm_text_tower("cxr_bert")


@pytest.mark.parametrize("rows", [100, 100_000])
@pytest.mark.parametrize("make", [fvlm_text_tower, radfinder_text_tower])
def test_the_tokenizer_of_another_encoder_is_refused(make: Any, rows: int, cxr_bert: str, bundle_root: Path) -> None:
    folder = cxr_bert if make is fvlm_text_tower else str(bundle_root / "models" / "text_encoder")
    pieces = len(BertTokenizer.from_pretrained(folder))
    rows = rows if pieces < 1000 or rows > pieces else pieces - 1
    with pytest.raises(
        ValueError,
        match=f"of at most {rows} pieces, found {pieces}; set text_encoder to the folder with",
    ):
        make(folder, vocab_size=rows)


def test_the_last_real_token_is_read_on_either_side() -> None:
    tower = PublishedTextTower(None, nn.ModuleDict({"trunk": nn.Identity(), "head": nn.Identity()}), pooling="last")
    hidden = torch.arange(8.0).view(2, 4, 1)
    assert tower.pool(hidden, torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])).flatten().tolist() == [1, 7]
    assert tower.pool(hidden, torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])).flatten().tolist() == [3, 7]
