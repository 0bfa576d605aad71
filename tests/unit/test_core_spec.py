"""An app's spec: one set of fields, in Python and on the wire, and the rules a user meets."""

import enum
import re
import types
import typing
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from fleet.v1 import types_pb2
from fleet_core.addresses import parse_address
from fleet_core.checked import Checked, CheckError
from fleet_core.spec import AppSpec, ListenMode, RestartMode, Runtime, spec_digest

_MINIMAL: dict[str, Any] = {"name": "my-app", "argv": ("node", "server.js"), "cwd": "/srv/app"}
_SCALARS: dict[type, set[int]] = {
    str: {FieldDescriptor.TYPE_STRING},
    float: {FieldDescriptor.TYPE_DOUBLE},
    int: {
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
    },
    bool: {FieldDescriptor.TYPE_BOOL},
}


def _bare(annotation: Any) -> Any:
    """The type inside Annotated[...] and beside None: an enum that is None is the unspecified one."""
    if isinstance(annotation, types.UnionType):
        (annotation,) = (choice for choice in typing.get_args(annotation) if choice is not types.NoneType)
        assert issubclass(annotation, enum.Enum)
    return annotation.__origin__ if typing.get_origin(annotation) is typing.Annotated else annotation


def _assert_same_fields(model: type[Checked], message: Descriptor) -> None:
    annotations = typing.get_type_hints(model)
    assert set(annotations) == set(message.fields_by_name), message.full_name
    for name, annotation in annotations.items():
        _assert_same_type(_bare(annotation), message.fields_by_name[name])


def _assert_same_type(annotation: Any, field: FieldDescriptor) -> None:
    where = field.full_name
    if typing.get_origin(annotation) is tuple:
        assert field.is_repeated, where
        assert field.type in _SCALARS[_bare(typing.get_args(annotation)[0])], where
    elif typing.get_origin(annotation) is dict:
        assert field.message_type is not None, where
        assert field.message_type.GetOptions().map_entry, where
    elif isinstance(annotation, type) and issubclass(annotation, Checked):
        assert field.message_type is not None, where
        assert not field.is_repeated, where
        _assert_same_fields(annotation, field.message_type)
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        _assert_same_values(annotation, field)
    else:
        assert field.type in _SCALARS[annotation], where


def _assert_same_values(choices: type[enum.Enum], field: FieldDescriptor) -> None:
    assert field.enum_type is not None, field.full_name
    names = [value.name for value in field.enum_type.values]
    prefix = names[0].removesuffix("UNSPECIFIED")
    assert set(names[1:]) == {prefix + choice.name for choice in choices}, field.full_name


def test_the_model_and_the_message_agree_field_for_field() -> None:
    _assert_same_fields(AppSpec, types_pb2.AppSpec.DESCRIPTOR)


_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@st.composite
def _specs(draw: st.DrawFn) -> AppSpec:
    seconds = st.floats(0, 86_400)
    positive = st.floats(0.001, 86_400)
    listen_mode = draw(st.sampled_from(ListenMode))
    route = draw(st.sampled_from(["", "127.0.0.1:80"])) if listen_mode is ListenMode.PORT else ""
    return AppSpec.model_validate(
        {
            "name": draw(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?", fullmatch=True)),
            "argv": draw(st.tuples(_text.filter(bool), _text)),
            "cwd": "/" + draw(_text),
            "env": draw(st.dictionaries(_text.filter(lambda key: key and "=" not in key), _text, max_size=3)),
            "runtime": draw(st.sampled_from(Runtime)),
            "listen_mode": listen_mode,
            "declared_port": draw(st.integers(0, 65_535)),
            "ready": {
                "http_path": draw(st.sampled_from(["", "/healthz"])),
                "start_timeout_seconds": draw(positive),
                "min_uptime_seconds": draw(seconds),
                "method": draw(st.sampled_from([None, "uptime", "notify"])),
            },
            "stop": {
                "signal": draw(st.sampled_from(["SIGTERM", "SIGINT"])),
                "grace_seconds": draw(seconds),
                "shutdown_message": draw(st.booleans()),
            },
            "restart": {
                "mode": draw(st.sampled_from(RestartMode)),
                "stop_exit_codes": draw(st.lists(st.integers(0, 255), max_size=3).map(tuple)),
                "max_restarts": draw(st.integers(0, 100_000)),
                "window_seconds": draw(positive),
            },
            "rollout": {
                "max_surge": draw(st.integers(1, 1000)),
                "max_unavailable": draw(st.integers(0, 10_000)),
                "min_ready_seconds": draw(seconds),
            },
            "route": {"http": route},
            "identity": {
                "user": draw(st.sampled_from(["", "www-data"])),
                "nice": draw(st.integers(-20, 19)),
                "resource_limits": draw(
                    st.dictionaries(
                        st.sampled_from(["NOFILE", "CORE"]),
                        st.fixed_dictionaries({"soft": st.integers(-1, 2**40), "hard": st.integers(-1, 2**63 - 1)}),
                    )
                ),
            },
            "limits": {
                "memory_restart_bytes": draw(st.integers(0, 2**63 - 1)),
                "cpu_max_cores": draw(st.floats(0, 64)),
            },
            "log": {"timestamps": draw(st.booleans()), "json_lines": draw(st.booleans())},
            "cron_restart": draw(st.sampled_from(["", "0 3 * * *"])),
            "env_files": draw(st.lists(_text, max_size=2).map(tuple)),
            "worker_env": draw(
                st.dictionaries(st.integers(1, 50), st.dictionaries(st.sampled_from(["A", "B"]), _text), max_size=2)
            ),
            "counters": draw(st.dictionaries(st.sampled_from(["N", "METRICS"]), st.integers(0, 2**31 - 1))),
        }
    )


@given(_specs())
def test_a_spec_crosses_the_wire_unchanged(spec: AppSpec) -> None:
    message = types_pb2.AppSpec.FromString(spec.to_proto().SerializeToString())

    assert AppSpec.from_proto(message) == spec


@given(_specs())
def test_equal_specs_have_equal_digests(spec: AppSpec) -> None:
    again = AppSpec.from_proto(spec.to_proto())

    assert spec_digest(again.to_proto()) == spec_digest(spec.to_proto())


def test_a_different_environment_is_a_different_digest() -> None:
    one, other = (AppSpec(**_MINIMAL, env={"COLOUR": colour}) for colour in ("red", "blue"))

    assert spec_digest(one.to_proto()) != spec_digest(other.to_proto())


def test_absent_policies_take_their_defaults_from_the_wire() -> None:
    message = types_pb2.AppSpec(name="my-app", argv=["node", "server.js"], cwd="/srv/app")

    assert AppSpec.from_proto(message) == AppSpec(**_MINIMAL)


def test_inside_a_present_policy_nothing_is_defaulted() -> None:
    message = AppSpec(**_MINIMAL).to_proto()
    message.rollout.min_ready_seconds = 0

    assert AppSpec.from_proto(message).rollout.min_ready_seconds == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "My App"}, "app name"),
        ({"argv": ()}, "argv"),
        ({"argv": ("",)}, "command is empty"),
        ({"argv": ("node", "a\0b")}, "NUL"),
        ({"cwd": "srv/../app"}, "must be absolute"),
        ({"env": {"A=B": "c"}}, "environment variable"),
        ({"env": {"": "c"}}, "environment variable"),
        ({"env": {"A": "b\0"}}, "environment variable"),
        ({"counters": {"A=B": 1}}, "environment variable"),
        ({"counters": {"N": -1}}, "counters"),
        ({"counters": {"N": 2**31}}, "counters"),
        ({"declared_port": 65_536}, "declared_port"),
        ({"ready": {"http_path": "healthz"}}, "must start with /"),
        ({"ready": {"http_path": "/health z"}}, "holds what no URL does"),
        ({"ready": {"http_path": "/x HTTP/1.1\r\nHost: other"}}, "holds what no URL does"),
        ({"ready": {"start_timeout_seconds": float("inf")}}, "start_timeout_seconds"),
        ({"stop": {"signal": "TERM"}}, "signal"),
        ({"rollout": {"max_surge": 0}}, "no worker could ever be replaced"),
        ({"route": {"http": "8080x"}}, "ADDRESS:PORT"),
        ({"listen_mode": "none", "route": {"http": ":80"}}, "must listen"),
        ({"cron_restart": "0 3 * * * *"}, "five fields"),
        ({"cron_restart": "@reboot"}, "five fields"),
        ({"cron_restart": "R R * * *"}, "five fields"),
        ({"cron_restart": "H H * * *"}, "five fields"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_broken_rule_is_named(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(CheckError, match=word):
        AppSpec.model_validate({**_MINIMAL, **changes})


@pytest.mark.parametrize(
    "time", ["*/5 * * * *", "0 3 * * mon-fri", "0 0 1 JAN,MAR *", "0 0 L * *", "@daily", "@weekly"]
)
def test_cron_times_are_those_of_crontab(time: str) -> None:
    assert AppSpec.model_validate({**_MINIMAL, "cron_restart": time}).cron_restart == time


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:80", ("::1", 80)),
        (":80", ("0.0.0.0", 80)),
        ("80", ("0.0.0.0", 80)),
    ],
)
def test_an_address_is_read_as_users_write_it(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", ":", "localhost:", "localhost:http", ":0", ":65536", "a b:80", ":-1", ":8²"],
)
def test_what_is_no_address_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="write ADDRESS:PORT"):
        parse_address(text)


def test_a_value_of_a_newer_protocol_is_refused_as_invalid() -> None:
    message = AppSpec(**_MINIMAL).to_proto()
    newer = types_pb2.AppSpec.FromString(message.SerializeToString() + bytes([5 << 3, 99]))

    with pytest.raises(ValueError, match="runtime"):
        AppSpec.from_proto(newer)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"env": {"A": "x" * 131_070}}, "env: environment variable 'A' has 131072 bytes, and a program takes 131071"),
        ({"env": {"A": "\u2603" * 43_691}}, "env: environment variable 'A' has 131075 bytes"),
        ({"env": {f"A{number}": "x" * 100_000 for number in range(6)}}, "env: the variables have 600012 bytes"),
        ({"worker_env": {1: {"A": "x" * 131_070}}}, "worker_env: environment variable 'A' has 131072 bytes"),
        ({"env": {"A": "\udcff"}}, "env: environment variable 'A' is not UTF-8"),
        ({"argv": ("sh", "x" * 131_072)}, "argv: word 2 of the command has 131072 bytes"),
        ({"argv": ("sh", "\udcff")}, "argv: word 2 of the command is not UTF-8"),
        ({"cwd": "/\udcff"}, "is not UTF-8"),
    ],
)
def test_what_no_program_could_be_started_with_is_refused_at_once(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckError, match=re.escape(complaint)):
        AppSpec.model_validate({"name": "a", "argv": ("sh",), "cwd": "/", **fields})


def test_a_variable_of_the_greatest_length_can_be_set() -> None:
    AppSpec(name="a", argv=("sh", "x" * 131_071), cwd="/", env={"A": "x" * 131_069})
