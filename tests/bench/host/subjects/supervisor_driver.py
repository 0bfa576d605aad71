"""Stands in for fleet-agent: asks a supervisor, over one connection, for what `Conversation` tells it to."""

import asyncio
import json
import sys
from typing import Any

from fleet_agent.supervisor.protocol import Key, Launch
from fleet_agent.supervisor_client import SupervisorClient, SupervisorRefusedError, SupervisorUnavailable


async def main(socket_path: str) -> None:
    """Until the end of standard input."""
    client = SupervisorClient()
    await client.connect(socket_path)
    hello = await client.hello()
    listening = asyncio.create_task(_listen(client))
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            request = json.loads(line)
            print(json.dumps({"pid": hello.pid} if "hello" in request else await _run(client, request)), flush=True)
    finally:
        listening.cancel()
        await client.close()


async def _run(client: SupervisorClient, request: dict[str, Any]) -> dict[str, Any]:
    unknown = set(request["launch"]) - set(Launch.__dataclass_fields__)
    if unknown:
        return {"unavailable": f"the supervisor's protocol has no {', '.join(sorted(unknown))}"}
    launch = Launch(**request["launch"])
    keys = [Key(request["app"], slot, 1) for slot in range(request["first"], request["last"] + 1)]
    try:
        await asyncio.gather(*(client.run(key, launch) for key in keys))
    except (SupervisorRefusedError, SupervisorUnavailable) as error:
        return {"error": str(error)}
    return {}


async def _listen(client: SupervisorClient) -> None:
    async for _event in client.events():
        pass


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
