"""Who follows logs sees every line once, whatever becomes of the agents' sessions."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from fleet.v1 import agent_pb2
from fleet_controller.hosts import ObservedHost
from fleet_controller.outbox import Outbox
from fleet_controller.services.log_relay import LogRelay
from fleet_core.ids import Epoch

Chunks = AsyncIterator[tuple[str, agent_pb2.LogChunk]]
_SECONDS = 10.0


class Scene:
    def __init__(self) -> None:
        self.relay = LogRelay()
        self.leading = True

    def host(self, name: str) -> ObservedHost:
        return ObservedHost(name, left_at=0.0, outbox=Outbox())

    def read(self, *hosts: ObservedHost, follow: bool = True, named: str = "") -> Chunks:
        wanted = agent_pb2.LogRequest(app="shop", lines=5, follow=follow)
        return self.relay.read(
            list(hosts), lambda: Epoch(1, 1), wanted, named={named} if named else (), leads=lambda: self.leading
        )

    async def sent(self, host: ObservedHost) -> agent_pb2.LogRequest:
        """What the host is asked."""
        assert host.outbox is not None
        async for message in host.outbox.messages():
            return message.log_request
        raise AssertionError("nothing was sent")

    def say(self, host: str, request: agent_pb2.LogRequest, *lines: bytes, offset: int) -> None:
        chunk = agent_pb2.LogChunk(request_id=request.request_id)
        for line in lines:
            chunk.lines.add(app="shop", host=host, slot=1, stream="stdout", text=line)
        chunk.positions.logs.add(app="shop", slot=1, stream="stdout", inode=7, offset=offset)
        self.relay.deliver(host, chunk)


async def following(chunks: Chunks) -> tuple[str, list[bytes], str]:
    async with asyncio.timeout(_SECONDS):
        host, chunk = await anext(chunks)
    return host, [line.text for line in chunk.lines], chunk.error


async def test_a_host_that_comes_back_is_asked_to_go_on_where_it_was_read_to() -> None:
    scene = Scene()
    one, two = scene.host("one"), scene.host("two")
    chunks = scene.read(one, two)
    waiting = asyncio.create_task(following(chunks))
    asked = await scene.sent(one)
    assert (asked.lines, asked.HasField("resume")) == (5, False)
    scene.say("one", asked, offset=100)
    scene.say("one", asked, b"first", offset=106)
    assert await waiting == ("one", [], "")
    assert await following(chunks) == ("one", [b"first"], "")
    scene.relay.host_left("one")
    one.outbox = Outbox()
    scene.relay.host_came(one)
    again = await scene.sent(one)
    assert [log.offset for log in again.resume.logs] == [106]
    scene.say("one", asked, b"too late", offset=999)
    assert await following(chunks) == ("one", [], "host one is no longer connected")
    scene.say("one", again, b"second", offset=113)
    assert await following(chunks) == ("one", [b"second"], "")


async def test_an_agent_that_tells_no_places_goes_on_with_what_is_printed_then() -> None:
    scene = Scene()
    one = scene.host("one")
    waiting = asyncio.create_task(following(scene.read(one)))
    asked = await scene.sent(one)
    scene.relay.host_left("one")
    one.outbox = Outbox()
    scene.relay.host_came(one)
    again = await scene.sent(one)
    assert (asked.lines, again.lines, again.HasField("resume")) == (5, 0, False)
    waiting.cancel()


async def test_a_host_that_was_away_or_joins_is_followed_from_when_it_comes() -> None:
    scene = Scene()
    chunks = scene.read()
    waiting = asyncio.create_task(following(chunks))
    await asyncio.sleep(0)
    new = scene.host("new")
    scene.relay.host_came(new)
    asked = await scene.sent(new)
    assert asked.lines == 5
    scene.say("new", asked, b"hello", offset=6)
    assert await waiting == ("new", [b"hello"], "")


async def test_only_the_host_that_was_named_is_followed() -> None:
    scene = Scene()
    one, other = scene.host("one"), scene.host("other")
    waiting = asyncio.create_task(following(scene.read(one, named="one")))
    await scene.sent(one)
    assert other.outbox is not None
    scene.relay.host_came(other)
    other.outbox.close()
    assert [message async for message in other.outbox.messages()] == []
    waiting.cancel()


@pytest.mark.parametrize("follow", [True, False])
async def test_a_reading_ends_where_its_last_host_left_unless_it_may_come_back_here(follow: bool) -> None:
    scene = Scene()
    one = scene.host("one")
    chunks = scene.read(one, follow=follow)
    waiting = asyncio.create_task(following(chunks))
    await scene.sent(one)
    scene.relay.host_left("one")
    assert await waiting == ("one", [], "host one is no longer connected")
    scene.leading = False
    with pytest.raises(StopAsyncIteration):
        await following(chunks)


async def test_a_session_that_took_the_place_of_another_ends_what_was_not_followed() -> None:
    scene = Scene()
    one = scene.host("one")
    chunks = scene.read(one, follow=False)
    waiting = asyncio.create_task(following(chunks))
    await scene.sent(one)
    one.outbox = Outbox()
    scene.relay.host_came(one)
    assert await waiting == ("one", [], "host one was cut off")
    with pytest.raises(StopAsyncIteration):
        await following(chunks)


async def test_a_caller_who_reads_slowly_gets_every_line_and_no_host_is_asked_for_more_than_there_is_room_for() -> None:
    scene = Scene()
    one = scene.host("one")
    chunks = scene.read(one, follow=False)
    waiting = asyncio.create_task(following(chunks))
    asked = await scene.sent(one)
    scene.say("one", asked, offset=0)
    await waiting
    for number in range(1000):
        scene.say("one", asked, b"%d" % number, offset=number + 1)
    assert one.outbox is not None
    cancelled = await anext(one.outbox.messages())
    assert cancelled.log_cancel.request_id == asked.request_id
    got = [(await following(chunks))[1][0] for _ in range(200)]
    again = await scene.sent(one)
    (place,) = again.resume.logs
    for number in range(place.offset, 1000):
        if number - place.offset < 60:
            scene.say("one", again, b"%d" % number, offset=number + 1)
    scene.relay.deliver("one", agent_pb2.LogChunk(request_id=again.request_id, done=True))
    while (line := (await following(chunks))[1]) != []:
        got += line
    assert got == [b"%d" % number for number in range(place.offset + 60)]
    with pytest.raises(StopAsyncIteration):
        await following(chunks)


async def test_a_slow_caller_is_cut_off_where_the_agent_cannot_go_on_later() -> None:
    scene = Scene()
    one = scene.host("one")
    chunks = scene.read(one)
    waiting = asyncio.create_task(following(chunks))
    asked = await scene.sent(one)
    for _ in range(1000):
        scene.relay.deliver("one", agent_pb2.LogChunk(request_id=asked.request_id))
    await waiting
    with pytest.raises(StopAsyncIteration):
        await following(chunks)
