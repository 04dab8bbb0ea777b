"""The page's text: which networks, what the colours mean, how much of each class; what came from a file is escaped."""

from collections.abc import Sequence
from html import escape

from unet.demo.answer import Answer
from unet.demo.networks import Network
from unet.geometry import times


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; ``head`` and the cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def networks_table(networks: Sequence[Network]) -> str:
    """Which checkpoint each is, and by which operators it goes down and up."""
    rows = [
        [
            f"<b>{one.letter}</b>" * (len(networks) == 2),
            escape(one.name),
            escape(one.operator("down")),
            escape(one.operator("up")),
        ]
        for one in networks
    ]
    return table(["", "checkpoint", "down", "up"], rows)


def legend(networks: Sequence[Network], answer: Answer | None) -> str:
    """The classes' colours and names, and with an answer the share of the picture that each has."""
    model = networks[0].model
    head = ["", "class", *(f"{one.letter}, share" if len(networks) == 2 else "share" for one in networks if answer)]
    rows = []
    for label, (name, color) in enumerate(zip(model.classes, model.colors, strict=True)):
        swatch = f'<span class="swatch" style="background: rgb({", ".join(str(int(c)) for c in color)})"></span>'
        rows.append([swatch, escape(name), *(percent(said.shares[label]) for said in (answer.said if answer else []))])
    return table(head, rows)


def percent(share: float) -> str:
    """``0.1234`` -> ``12.3 %``; what is there but rounds to nothing as ``< 0.1 %``."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def summary(name: str, answer: Answer) -> str:
    """The picture's name and size, the time it took, and how far two networks differ."""
    height, width = answer.size
    words = [f"<b>{escape(name)}</b>: {times((width, height))} pixels, {answer.seconds:.2f} s"]
    if answer.step > 1:
        words.append(f"every {answer.step}th pixel of each row and column is shown")
    if len(answer.said) == 2:
        words.append(f"A and B differ in <b>{percent(answer.differing)}</b> of the pixels")
    return f'<p id="summary">{"; ".join(words)}</p>'


def refusal(sentence: str) -> str:
    return f'<p id="summary" class="refused" role="alert">{escape(sentence)}</p>'
