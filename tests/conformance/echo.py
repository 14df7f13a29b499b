"""The WebSocket echo server that Autobahn's cases run against, directly and through the gateway."""

import asyncio
import logging
import sys

from websockets.asyncio.server import serve

# The cases break the protocol on purpose.
logging.getLogger("websockets").setLevel(logging.CRITICAL)


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None, ping_interval=None):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
