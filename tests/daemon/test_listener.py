"""A listener that runs out of descriptors: surplus peers are closed, and it recovers, whatever was lost meanwhile."""

import asyncio
import os
import resource
import socket
import subprocess
import sys

from pepcore.errors import Overloaded
from pepcore.server.listener import REST_S, Listener


class Nobody:
    """A service that has no room: what is tested is who is accepted at all."""

    def __init__(self):
        self.seen = 0

    def admit(self, *_):
        self.seen += 1
        raise Overloaded("connections", "no room")


def test_the_spare_descriptor_is_won_back_when_others_took_it_and_nobody_waits_for_ever(tmp_path):
    """In a process of its own: what other tests left open here may close at any moment, and be a descriptor more."""
    done = subprocess.run([sys.executable, __file__, str(tmp_path / "s")], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["(b'', 1, True)"], done.stdout + done.stderr


def without_descriptors(path: str) -> tuple[bytes, int, bool]:
    async def run():
        service = Nobody()
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen()
        listener = Listener(service, listening)
        peers = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for peer in peers:
            peer.settimeout(5)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            peers[0].connect(path)
            await asyncio.sleep(REST_S / 2)
            closed = peers[0].recv(1)  # with the spare descriptor
            listener._drop_spare()
            taken = []
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            peers[1].connect(path)
            await asyncio.sleep(REST_S / 2)  # nobody can be accepted: it rests, and does not spin
            cpu = resource.getrusage(resource.RUSAGE_SELF)
            await asyncio.sleep(REST_S * 3)
            spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu.ru_utime
            for one in taken:
                os.close(one)
            await asyncio.sleep(REST_S * 2)
            closed += peers[1].recv(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        peers[2].connect(path)
        await asyncio.sleep(REST_S)
        closed += peers[2].recv(1)[1:]  # which gets an error frame
        listener.close()
        for peer in peers:
            peer.close()
        return closed, service.seen, spent < REST_S

    return asyncio.run(run())


if __name__ == "__main__":
    print(without_descriptors(sys.argv[1]))
