"""Between a protobuf message and plain values: enums by their short name in lower case, absent messages left out. Pure."""

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

_M = TypeVar("_M", bound=Message)


def plain(message: Message) -> dict[str, Any]:
    """The message's fields as plain values: absent sub-messages and unspecified enums left out, enums by their short name."""
    fields: dict[str, Any] = {}
    for entry in message.DESCRIPTOR.fields:
        value = getattr(message, entry.name)
        if entry.message_type is not None and entry.message_type.GetOptions().map_entry:
            values = entry.message_type.fields_by_name["value"]
            fields[entry.name] = {key: plain(value[key]) if values.message_type else value[key] for key in value}
        elif entry.is_repeated:
            fields[entry.name] = list(value)
        elif entry.message_type is not None:
            if message.HasField(entry.name):
                fields[entry.name] = plain(value)
        elif entry.enum_type is not None:
            if value:
                # A value of a newer protocol has no name here, only a number; validation refuses it.
                known = entry.enum_type.values_by_number.get(value)
                fields[entry.name] = (
                    known.name.removeprefix(_prefix(entry.enum_type)).lower() if known is not None else str(value)
                )
        else:
            fields[entry.name] = value
    return fields


def filled(message: _M, fields: Mapping[str, Any]) -> _M:
    """`message` with these fields, as `plain` gives them; an enum that is None is the unspecified one."""
    return json_format.ParseDict(_enums_named(message.DESCRIPTOR, fields), message)


def _enums_named(descriptor: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in fields.items():
        entry = descriptor.fields_by_name[name]
        if entry.enum_type is not None:
            if value is not None:
                named[name] = f"{_prefix(entry.enum_type)}{value.upper()}"
        elif entry.message_type is not None and not entry.message_type.GetOptions().map_entry:
            named[name] = _enums_named(entry.message_type, value)
        else:
            named[name] = value
    return named


def _prefix(enum: Any) -> str:
    """What every name of its values begins with: the zero value is PREFIX_UNSPECIFIED."""
    return str(enum.values_by_number[0].name).removesuffix("UNSPECIFIED")
