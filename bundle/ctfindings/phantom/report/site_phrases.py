"""Where a site of a synthetic scan lies, in words: side, lobe, artery, node station or hiatus, with a preposition."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bundle.ctfindings.phantom.case import Site
from bundle.ctfindings.phantom.report.sentence_frames import listed, pick

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_LUNG_PARTS: dict[str, list[str]] = _TABLE["lung_parts"]


def _side_of(sites: Sequence[Site]) -> str | None:
    sides = {site.side for site in sites} - {None}
    return "bilateral" if len(sides) > 1 else next(iter(sides), None)


def _lung_part(site: Site) -> str:
    if site.location is None:
        return f"the {site.side} lung" if site.side in ("left", "right") else "both lungs"
    if site.location in ("lingula", "middle lobe"):  # there is one
        return f"the {site.location}"
    singular, plural = _LUNG_PARTS.get(site.location, [site.location] * 2)
    if site.side in ("left", "right"):
        return f"the {site.side} {singular}"
    return f"both {plural}" if site.location in _LUNG_PARTS else f"the {plural}"


def _enumerated(parts: Sequence[str]) -> str:
    unique = list(dict.fromkeys(part for part in parts if part))
    return listed(unique, "and") if unique else ""


def _lobe(sites: Sequence[Site], rng: np.random.Generator) -> str:
    if sites[0].side is not None and rng.random() < 0.12:
        side = _side_of(sites)
        return pick(rng, _TABLE["both_sides"]) if side == "bilateral" else f"on the {side}"
    if len({site.location for site in sites}) == 1:
        parts = [_lung_part(Site(sites[0].finding, 0.0, _side_of(sites), sites[0].location))]
    else:
        parts = [_lung_part(site) for site in sites]
    if len(set(parts)) > 3 or any(part.endswith(("lung", "lungs")) for part in parts):
        parts = [_lung_part(Site(sites[0].finding, 0.0, _side_of(sites)))]
    text = _enumerated(parts)
    if all(part.endswith(("apex", "apices", "base", "bases")) for part in parts):
        return f"at {text}"
    return f"{pick(rng, ('in', 'in', 'within'))} {text}"


def _pleura(sites: Sequence[Site], rng: np.random.Generator) -> str:
    side = _side_of(sites)
    if side in ("left", "right"):
        forms = ("on the {}", "in the {} pleural space", "in the {} hemithorax", "on the {} side")
        return pick(rng, forms).format(side)
    return pick(rng, (*_TABLE["both_sides"], "in both pleural spaces")) if side == "bilateral" else ""


def _node(sites: Sequence[Site], rng: np.random.Generator) -> str:
    parts = []
    for site in sites:
        options = _TABLE["node_stations"].get(
            site.location or "", ["in the mediastinum", "among the mediastinal stations"]
        )
        text = pick(rng, options)
        if site.side == "bilateral":
            text = text.replace("at the {side} hilum", "at both hila")
            text = text.replace("the {side} hilar region", "both hilar regions")
        parts.append(text.replace("{side} ", f"{site.side} " if site.side in ("left", "right") else ""))
    return _enumerated(parts)


def _aorta(sites: Sequence[Site], rng: np.random.Generator) -> str:
    named = [site.location for site in sites if site.location]
    if not named:
        return pick(rng, _TABLE["aorta_at_large"])
    return pick(rng, ("along", "in", "in the wall of")) + " " + _enumerated([f"the {name}" for name in named])


def _coronary(sites: Sequence[Site], rng: np.random.Generator) -> str:
    named = _TABLE["coronaries"]
    return _enumerated([pick(rng, named[site.location]) for site in sites if site.location in named])


def place(domain: str, sites: Sequence[Site], rng: np.random.Generator) -> str:
    """The place of one or more sites of a finding with its preposition; several are joined.

    Domains are ``lobe``, ``pleura``, ``node``, ``aorta``, ``coronary`` and ``hiatus``; any other gives an empty text.
    """
    if domain == "hiatus":
        return pick(rng, _TABLE["hiatus"])
    table = {"lobe": _lobe, "pleura": _pleura, "node": _node, "aorta": _aorta, "coronary": _coronary}
    return table[domain](sites, rng) if domain in table else ""


def overall_place(domain: str, sites: Sequence[Site], rng: np.random.Generator) -> str:
    """The region over which several occurrences are spread: one lung, both, or "" for other domains."""
    if domain != "lobe" or any(site.count > 1 for site in sites):  # the count does not say where the others are
        return ""
    return place(domain, [Site(sites[0].finding, 0.0, _side_of(sites))], rng)
