"""Explanations as one HTML page: every word shaded, once by attention and once by gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from finetune.explain import Explanation, ShadedWord

_ATTENTION, _GRADIENT = "27, 108, 168", "193, 67, 46"
_STYLE = """
body { font: 16px/1.9 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
article { border-top: 1px solid #ddd; padding: .6rem 0 } h2 { font-size: 1rem; margin: .4rem 0 }
p { margin: .2rem 0; overflow-wrap: anywhere } small { color: #666; display: inline-block; width: 6.5rem }
span { border-radius: 3px; padding: .1rem 0 }
"""


def render_explanations(explanations: Sequence[Explanation]) -> str:
    """The whole page; it needs nothing from elsewhere."""
    articles = "".join(_article(explanation) for explanation in explanations)
    return (
        '<!doctype html><html lang="ru"><head><meta charset="utf-8"><title>What the model looked at</title>'
        f"<style>{_STYLE}</style></head><body><h1>What the model looked at</h1>"
        "<p>Blue: attention of the classifying token in the last layer. Red: gradient times input for the "
        "class chosen. The darkest word of each line has the largest share. A shade is a hint, not a proof.</p>"
        f"{articles}</body></html>\n"
    )


def _article(explanation: Explanation) -> str:
    lines = []
    for name, colour, share in (
        ("attention", _ATTENTION, lambda word: word.attention),
        ("gradient", _GRADIENT, lambda word: word.gradient),
    ):
        shaded = [
            _shaded(text, [word for word in explanation.words if word.text == number], colour, share)
            for number, text in enumerate((explanation.texts.first, explanation.texts.second))
            if text is not None
        ]
        lines.append(f"<p><small>{name}</small> {' <b>|</b> '.join(shaded)}</p>")
    title = f"{escape(explanation.label)} ({explanation.probability:.0%})"
    return f"<article><h2>{title}</h2>{''.join(lines)}</article>"


def _shaded(text: str, words: Sequence[ShadedWord], colour: str, share: Callable[[ShadedWord], float]) -> str:
    parts, place = [], 0
    for word in words:
        parts.append(escape(text[place : word.start]))
        value = share(word)
        parts.append(
            f'<span style="background: rgba({colour}, {0.75 * value:.3f})" title="{value:.2f}">'
            f"{escape(text[word.start : word.end])}</span>"
        )
        place = word.end
    parts.append(escape(text[place:]))
    return "".join(parts)
