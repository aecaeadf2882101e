"""The text tower: frozen trunk, heads by role, and each text encoded once."""

import hashlib
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from bundle.ctfindings.networks.text.text_tower import ROLES, TextTower


def _tower(encoder: str, **options) -> TextTower:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return TextTower(encoder, embedding=8, hidden=16, **options).eval()


def _count_texts(tower: TextTower) -> list[int]:
    """Fills up with the number of texts of each pass through the trunk."""
    passes: list[int] = []
    tower.trunk.register_forward_hook(lambda module, inputs, output: passes.append(output.last_hidden_state.shape[0]))
    return passes


def test_embeddings_are_unit_vectors_in_the_order_of_the_texts(encoder: str) -> None:
    tower = _tower(encoder)
    texts = ["no nodule", "a nodule of 5 mm", "no nodule", "effusion"]
    rows = tower(texts)
    assert rows.shape == (4, 8)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
    assert torch.equal(rows[0], rows[2])
    for row, text in zip(rows, texts, strict=True):
        torch.testing.assert_close(row, _tower(encoder)([text])[0], atol=1e-5, rtol=0)


def test_each_distinct_text_passes_the_frozen_trunk_once(encoder: str) -> None:
    tower = _tower(encoder)
    tower.batch_size = 2
    passes = _count_texts(tower)
    tower(["a", "b", "a", "c"])
    tower(["c", "a"], "anatomy")
    tower(["b", "d"], "snippet")
    assert sum(passes) == 4 and max(passes) <= 2


def test_cache_forgets_the_texts_that_were_used_longest_ago(encoder: str) -> None:
    tower = _tower(encoder)
    tower.cache_size = 2
    passes = _count_texts(tower)
    tower(["a", "b"])
    tower(["a", "c"])
    tower(["a", "c"])
    assert sum(passes) == 3
    tower(["b"])
    assert sum(passes) == 4
    assert tower(["x", "y", "z"]).shape == (3, 8)  # more at once than it keeps


def test_padding_does_not_change_an_embedding(encoder: str) -> None:
    short, long = "small nodule", "a long report about both lungs and the heart"
    alone = _tower(encoder)([short])
    padded = _tower(encoder)([long, short])
    torch.testing.assert_close(padded[1], alone[0], atol=1e-5, rtol=0)
    assert (padded[0] - padded[1]).abs().max() > 1e-3


def test_features_are_the_mean_over_the_tokens(encoder: str) -> None:
    tower = _tower(encoder)
    hidden = tower.trunk(**tower.tokenizer("abc", return_tensors="pt")).last_hidden_state[0]
    torch.testing.assert_close(tower.features(["abc"])[0], hidden.mean(0), atol=1e-5, rtol=0)


def test_roles_share_a_head_but_snippets_have_their_own(encoder: str) -> None:
    tower = _tower(encoder)
    first = {role: tower(["a nodule"], role) for role in ROLES}
    assert all(torch.equal(first[role], first["prompt"]) for role in ROLES)  # they start alike
    with torch.no_grad():
        tower.snippet_head.linear.weight.neg_()
    second = {role: tower(["a nodule"], role) for role in ROLES}
    for role in ROLES:
        assert torch.equal(first[role], second[role]) == (role != "snippet")


def test_frozen_trunk_is_not_in_the_checkpoint_and_gets_no_gradient(encoder: str) -> None:
    tower = _tower(encoder).train()
    assert not [key for key in tower.state_dict() if "trunk." in key]
    assert not tower.trunk.training
    tower(["a", "b"]).square().sum().backward()
    assert all(parameter.grad is None for parameter in tower.trunk.parameters())
    assert tower.head.linear.weight.grad is not None


def test_checkpoint_of_a_frozen_tower_loads_into_another_with_the_same_trunk(encoder: str) -> None:
    tower = _tower(encoder)
    with torch.no_grad():
        tower.head.linear.weight.neg_()
    other = _tower(encoder)
    other.load_state_dict(tower.state_dict())
    torch.testing.assert_close(other(["a", "b"]), tower(["a", "b"]))


def test_checkpoint_of_another_trunk_is_refused(encoder: str, other_encoder: str) -> None:
    with pytest.raises(ValueError, match="another text encoder"):
        _tower(encoder).load_state_dict(_tower(other_encoder).state_dict())


def test_digest_is_that_of_the_files_of_the_encoder(encoder: str) -> None:
    files = sorted(file for file in Path(encoder).iterdir() if file.name in ("model.safetensors", "tokenizer.json"))
    expected = hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).digest()
    assert bytes(_tower(encoder).trunk_digest.tolist()) == expected


@pytest.mark.parametrize(("layers", "trained"), [(1, {1}), (2, {0, 1}), (3, {0, 1})])
def test_last_layers_of_the_trunk_are_trained_and_kept(encoder: str, layers: int, trained: set[int]) -> None:
    tower = _tower(encoder, trainable_layers=layers).train()
    found = {int(name.split(".")[2]) for name, parameter in tower.trunk.named_parameters() if parameter.requires_grad}
    assert found == trained
    assert [key for key in tower.state_dict() if key.startswith("trunk.")]
    (tower(["a", "bc"]) * torch.randn(2, 8)).sum().backward()
    assert tower.trunk.encoder.layer[1].output.dense.weight.grad.abs().sum() > 0


def test_trained_trunk_is_asked_again_after_a_step(encoder: str) -> None:
    tower = _tower(encoder, trainable_layers=-1)
    before = tower(["a"])
    with torch.no_grad():
        tower.trunk.encoder.layer[1].output.dense.weight.mul_(2)
    assert not torch.allclose(tower(["a"]), before)


def test_trained_trunk_rests_while_the_heads_alone_learn(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = TextTower(encoder, trainable_layers=-1).train()
    passes: list[int] = []
    encode = tower._encode
    monkeypatch.setattr(tower, "_encode", lambda texts, device: passes.append(len(texts)) or encode(texts, device))
    with tower.frozen_trunk():
        for _ in range(3):
            tower(["a nodule", "no nodule"]).sum().backward()
        assert passes == [2], "each text is read once"
        assert not tower.trunk.training
    assert all(parameter.grad is None for parameter in tower.trunk.parameters())
    assert tower.head.linear.weight.grad is not None
    assert tower.trunk.training
    tower(["a nodule"]).sum().backward()
    assert passes == [2, 1], "what was kept while it rested is forgotten"
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in tower.trunk.parameters())
    assert any(".trunk." in f".{key}" for key in tower.state_dict()), "the trunk is in the checkpoint"


def test_trained_trunk_pads_texts_of_like_length_together_and_answers_in_the_order_asked(encoder: str) -> None:
    tower = _tower(encoder, trainable_layers=-1).eval()
    tower.batch_size = 2
    texts = ["a nodule in the upper lobe", "a", "a nodule in the lower lobe", "bc", "a"]
    passes: list[torch.Size] = []
    tower.trunk.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    together = tower(texts)
    short, long = passes
    assert short[0] == long[0] == 2 and short[1] < long[1], (
        "four distinct texts, the two short ones in a pass of their own"
    )
    for row, text in zip(together, texts, strict=True):
        torch.testing.assert_close(row, tower([text])[0], atol=1e-5, rtol=1e-4)


def test_new_trunk_takes_its_geometry_from_the_configuration(encoder: str) -> None:
    tower = _tower(encoder, trainable_layers=-1, from_scratch={"num_hidden_layers": 1})
    assert len(tower.trunk.encoder.layer) == 1
    assert all(parameter.requires_grad for parameter in tower.parameters())


def test_new_trunk_is_in_single_precision_where_the_pretrained_one_is_stored_in_half(
    encoder: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "half"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    assert (
        _tower(str(folder), trainable_layers=-1, from_scratch={"num_hidden_layers": 1})(["a nodule"]).dtype
        == torch.float32
    )


def test_new_trunk_that_is_frozen_is_refused(encoder: str) -> None:
    with pytest.raises(ValueError, match="set trainable_layers to -1"):
        _tower(encoder, from_scratch={"num_hidden_layers": 1})


def test_loading_a_trunk_is_silent(encoder: str, other_encoder: str) -> None:
    records: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(listener)
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    try:
        for folder in (encoder, other_encoder):  # saved without and with a pooler
            assert _tower(folder).trunk.pooler is None
    finally:
        logger.removeHandler(listener)
    assert not records
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before


def test_encoder_that_lacks_weights_is_refused(encoder: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"encoder: the weights lack 1 tensors .*encoder\.layer\.1\.output\.dense\.weight"
    ):
        _tower(str(folder))


def test_text_longer_than_the_encoder_reads_is_the_mean_of_its_windows(encoder: str) -> None:
    tower = _tower(encoder)  # The tiny encoder has 64 positions, two of them for the ends of a text.
    first, second = "a " * 62, "b " * 20
    whole, parts = tower.features([first + second, "c"]), tower.features([first, second, "c"])
    torch.testing.assert_close(whole[0], (64 * parts[0] + 22 * parts[1]) / 86, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole[1], parts[2], atol=1e-5, rtol=0)
    tower.batch_size = 1  # Windows of one text in several passes.
    tower._cache.clear()
    torch.testing.assert_close(tower.features([first + second])[0], whole[0], atol=1e-5, rtol=0)


def test_tokenizer_that_knows_no_windows_cuts_the_text(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = _tower(encoder)
    tokenize = tower.tokenizer
    monkeypatch.setattr(
        tower, "tokenizer", lambda texts, return_overflowing_tokens=False, **options: tokenize(texts, **options)
    )
    torch.testing.assert_close(tower.features(["a " * 100]), tower.features(["a " * 62]))


def test_missing_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no transformers encoder"):
        _tower(str(tmp_path / "nowhere"))


def test_unknown_role_and_no_text_are_refused(encoder: str) -> None:
    tower = _tower(encoder)
    with pytest.raises(
        ValueError, match="role 'title' is unknown; known are report, anatomy, prompt, sentence, snippet"
    ):
        tower(["a"], "title")
    with pytest.raises(ValueError, match="at least one text"):
        tower([])


def test_features_are_adopted_from_a_tower_on_the_same_frozen_trunk_alone(encoder: str, other_encoder: str) -> None:
    first = TextTower(encoder, embedding=8)
    first(["a nodule"])
    second, other, trained = (
        TextTower(encoder, embedding=8),
        TextTower(other_encoder, embedding=8),
        TextTower(encoder, 8, trainable_layers=-1),
    )
    for tower in (second, other, trained):
        tower.adopt_features(first)
    assert "a nodule" in second._cache
    assert "a nodule" not in other._cache and "a nodule" not in trained._cache
    torch.testing.assert_close(second.features(["a nodule"]), first.features(["a nodule"]))
