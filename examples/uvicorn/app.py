"""An everyday ASGI app."""

import asyncio
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route


async def who_am_i(_request: Request) -> JSONResponse:
    await asyncio.sleep(0.05)  # stands for the database an everyday app waits for
    return JSONResponse({"pid": os.getpid()})


async def echo(request: Request) -> JSONResponse:
    body = await request.json()
    await asyncio.sleep(0.05)
    return JSONResponse(body)


async def health(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


app = Starlette(
    routes=[
        Route("/", who_am_i),
        Route("/echo", echo, methods=["POST"]),
        Route("/healthz", health),
    ]
)
