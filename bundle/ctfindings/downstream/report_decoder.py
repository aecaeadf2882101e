"""A small language model that writes a report from the rows of a scan.

Shapes: B scans, P rows of a scan, E embedding, L word pieces.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from bundle.ctfindings.downstream.encoded_scans import Rows

PADDING, START, END, UNKNOWN = range(4)


class PieceVocabulary:
    """The word pieces of training reports, by the tokenizer of the text tower.

    Args:
        tokenizer: of ``transformers``.
        reports: texts; other pieces of later texts are unknown.
    """

    def __init__(self, tokenizer: Any, reports: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        used = sorted({piece for text in reports for piece in self._pieces(text)})
        self.pieces = [0] * 4 + used  # The first four stand for themselves.
        self.place = {piece: place for place, piece in enumerate(used, start=4)}

    def _pieces(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def encode(self, text: str, longest: int) -> Tensor:
        """Places of the pieces of a text between start and end, at most `longest` of them; a text that is cut has no
        end.
        """
        body = [self.place.get(piece, UNKNOWN) for piece in self._pieces(text)]
        return torch.tensor([START, *body, END][:longest])

    def decode(self, places: Sequence[int]) -> str:
        """The text before the first end."""
        stop = places.index(END) if END in places else len(places)
        pieces = [self.pieces[place] for place in places[:stop] if place > UNKNOWN]
        return self.tokenizer.decode(pieces)


def scan_rows(rows: Rows) -> Tensor:
    """What the decoder reads of each scan, ``[S, P, E]``: anatomies, mean and maximum of the field, pathology queries.

    Rows of what a scan does not show are zero.
    """
    parts = [rows["anatomy"], rows["field"].unflatten(1, (2, -1)), rows["pathology"]]
    return torch.cat(parts, dim=1).float()


class ReportDecoder(nn.Module):
    """A GPT-2 from scratch, behind the rows of the scan as its first positions.

    Args:
        embedding: Size E of the rows.
        rows: Number P of the rows.
        pieces: Size of the vocabulary.
        longest: Word pieces of a report at most, with start and end.
        layers, width: Geometry of the transformer.
    """

    def __init__(self, embedding: int, rows: int, pieces: int, longest: int, layers: int = 2, width: int = 256) -> None:
        super().__init__()
        self.longest, self.width = longest, width
        self.project = nn.Sequential(nn.LayerNorm(embedding), nn.Linear(embedding, width))
        config = GPT2Config(
            vocab_size=pieces,
            n_positions=rows + longest,
            n_embd=width,
            n_layer=layers,
            n_head=4,
            bos_token_id=START,
            eos_token_id=END,
            pad_token_id=PADDING,
        )
        self.language = GPT2LMHeadModel(config)

    def _embedded(self, rows: Tensor, places: Tensor) -> Tensor:
        return torch.cat([self.project(rows), self.language.transformer.wte(places)], dim=1)

    def forward(self, given: tuple[Tensor, Tensor]) -> Tensor:
        """Logits of the pieces after each given one, ``[B, L, V]``, from rows ``[B, P, E]`` and places ``[B, L]``."""
        rows, places = given
        logits: Tensor = self.language(inputs_embeds=self._embedded(rows, places)).logits
        return logits[:, rows.shape[1] :]

    @torch.no_grad()
    def write(self, rows: Tensor) -> list[list[int]]:
        """The most probable piece at each place, until the end, for rows ``[B, P, E]``."""
        start = torch.full((len(rows), 1), START, device=rows.device)
        given = self._embedded(rows, start)
        found: Any = self.language.generate(  # type: ignore[misc]
            inputs_embeds=given,
            attention_mask=torch.ones(given.shape[:2], dtype=torch.long, device=rows.device),
            max_new_tokens=self.longest - 1,
            do_sample=False,
        )
        return [list(places) for places in found.tolist()]


def next_piece_loss(logits: Tensor, places: Tensor) -> Tensor:
    """Cross-entropy of logits ``[B, L, V]`` and the pieces that follow, ``[B, L]``; padding does not count."""
    return F.cross_entropy(logits.flatten(0, 1), places.flatten(), ignore_index=PADDING)


def collate_reports(items: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Rows ``[B, P, E]`` and padded places ``[B, L]`` of pairs of both."""
    rows, places = zip(*items, strict=True)
    padded = nn.utils.rnn.pad_sequence(list(places), batch_first=True, padding_value=PADDING)
    return torch.stack(rows), padded


def prepare_reports(batch: tuple[Tensor, Tensor], device: Any = None, non_blocking: bool = False, **_: Any) -> Any:
    """``prepare_batch`` of the engines: the rows with all pieces but the last, and all but the first."""
    rows, places = (part.to(device, non_blocking=non_blocking) for part in batch)
    return (rows, places[:, :-1]), places[:, 1:]
