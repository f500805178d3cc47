"""Templates to answers: everything is escaped, and knows who looks."""

import datetime as dt
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Response
from litestar.enums import MediaType

from control_plane.adapters import clock
from control_plane.console.charts import amount_words
from control_plane.console.navigation import PLACES, Place
from control_plane.console.visits import AnyRequest, Visit, new_form_key, visit_of
from control_plane.domain.names import show
from control_plane.domain.operations import LIVE_STATES, Operation
from control_plane.domain.spans import span_words

STATIC = Path(__file__).parent / "static"
UNKNOWN = "\N{EN DASH}"
_KIB = 1024
_VERSION = version("tenantry")


def page(request: AnyRequest, template: str, status: int = 200, /, **facts: Any) -> Response[str]:  # noqa: ANN401 - whatever the template shows
    """A whole page, or a part of one for htmx: what ``template`` makes of ``facts``.

    Every template also knows ``visit``, ``places``, ``here``, ``may(operationId)`` and
    ``csrf_token``.
    """
    visit = visit_of(request)
    shared = {
        "visit": visit,
        "may": visit.may if visit else lambda _: False,
        "csrf_token": visit.session.csrf_token if visit else "",
        "places": _places(visit),
        "here": request.url.path,
    }
    text = ENVIRONMENT.get_template(template).render(shared | facts)
    return Response(text, status_code=status, media_type=MediaType.HTML)


def fragment(visit: Visit, template: str, **facts: Any) -> str:  # noqa: ANN401 - see ``page``
    """A part of a page for an event stream."""
    shared = {"visit": visit, "may": visit.may, "csrf_token": visit.session.csrf_token}
    return ENVIRONMENT.get_template(template).render(shared | facts)


def size_words(count: int | None) -> str:
    """A number of bytes as a person says it."""
    if count is None:
        return UNKNOWN
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < _KIB:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= _KIB
    return f"{amount:.1f} TiB"


def span_or_unknown(span: dt.timedelta | float | None) -> str:
    """A length of time as a person says it."""
    return UNKNOWN if span is None else span_words(span)


def age_words(moment: dt.datetime | None) -> str:
    """How long ago something was."""
    return f"{span_words(clock.now() - moment)} ago" if moment is not None else "never"


def doing(operation: Operation) -> str:
    """What an operation does right now: its running step, or the state it is in."""
    return next((step.name for step in operation.steps if step.state == "running"), operation.state)


def _words(name: str) -> str:
    """``wait_copy`` as people read it."""
    return name.replace("_", " ")


def _places(visit: Visit | None) -> list[Place]:
    return [place for place in PLACES if visit is not None and visit.may(place.permission)]


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "size": size_words,
        "span": span_or_unknown,
        "age": age_words,
        "amount": amount_words,
        "words": _words,
        "doing": doing,
        "pair": lambda word: (word, _words(word)),
        "same": lambda word: (word, word),
        "shown": lambda key, prefix: show(prefix, key),
        "json_text": lambda value: json.dumps(value, indent=2, default=str, ensure_ascii=False),
    }
    made.globals |= {
        "version": _VERSION,
        "new_form_key": new_form_key,
        "live_states": LIVE_STATES,
        "now": clock.now,
    }
    return made


ENVIRONMENT = _environment()
