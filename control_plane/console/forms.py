"""Forms to structs: every wrong field is named beside its input."""

import re
from typing import TypeVar

import msgspec

from control_plane.console.visits import AnyRequest
from control_plane.domain.errors import Invalid, TenantryError
from control_plane.domain.statuses import status_of

Form = TypeVar("Form", bound=msgspec.Struct)
_PATH = re.compile(r" - at `\$\.(\w+)")
_MISSING = re.compile(r"missing required field `(\w+)`")


class Trouble(msgspec.Struct, frozen=True):
    """Why a form was not accepted: a status, a sentence, and what is wrong with which field."""

    status: int
    message: str
    fields: dict[str, str] = {}


async def fields_of(request: AnyRequest) -> dict[str, str]:
    """What was typed, as text, without what was left empty; several values become lines."""
    form = await request.form()
    texts = {name: [one for one in form.getall(name) if isinstance(one, str)] for name in form}
    joined = {name: "\n".join(values).strip() for name, values in texts.items()}
    return {name: text for name, text in joined.items() if text}


def read_form(fields: dict[str, str], form: type[Form]) -> Form:
    """The struct that the fields make; those it does not know are left out.

    Raises:
        Invalid: a field is missing or cannot be read.
    """
    try:
        return msgspec.convert(fields, form, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
        if found := _MISSING.search(text):
            field, message = found[1], "is required"
        else:
            found = _PATH.search(text)
            field, message = (found[1] if found else "form"), _PATH.sub("", text).rstrip("`")
        raise Invalid(f"{field} {message}", [{"field": field, "message": message}]) from error


def trouble_of(error: TenantryError) -> Trouble:
    """What a page shows of an error beside the form that caused it."""
    listed = error.errors if isinstance(error, Invalid) else []
    fields = {one["field"]: one.get("message", "") for one in listed if one.get("field")}
    return Trouble(status_of(error), error.message, fields)
