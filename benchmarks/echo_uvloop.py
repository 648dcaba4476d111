"""The floor of a Python daemon: uvloop and asyncio.Protocol, S bytes for every R bytes, and no work.

    python benchmarks/echo_uvloop.py --socket PATH --request R --reply S

All replies of one read leave in one write, as in the daemon and in echo.c. Prints `ready` when it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
from typing import cast

import uvloop


class Echo(asyncio.Protocol):
    def __init__(self, request: int, reply: int) -> None:
        self.request, self.reply, self.have = request, bytes(reply), 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases

    def data_received(self, data: bytes) -> None:
        whole, self.have = divmod(self.have + len(data), self.request)
        if whole:
            self.transport.write(self.reply if whole == 1 else self.reply * whole)


async def serve(path: str, request: int, reply: int) -> None:
    server = await asyncio.get_running_loop().create_unix_server(lambda: Echo(request, reply), path, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--request", type=int, required=True)
    parser.add_argument("--reply", type=int, required=True)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve(options.socket, options.request, options.reply))


if __name__ == "__main__":
    main()
