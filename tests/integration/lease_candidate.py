"""A candidate for a lease, as a process that tests kill and freeze: `lease_candidate.py KUBECONFIG NAMESPACE DURATION`.

Says on a line each, with the monotonic clock that all processes of a machine share: `standby`, `leader TIME`, `lost TIME`,
`released TIME`, and `wrote TIME` about every 20 ms while it may write, with the time just before it asked whether it may.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time

from seele_operator.kube.lease import Leadership


def say(*words: object) -> None:
    print(*words, flush=True)


async def main(kubeconfig: str, namespace: str, duration: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    leadership = await Leadership.connect(kubeconfig, namespace=namespace, duration=float(duration))
    say("standby")
    await leadership.acquire()
    say("leader", time.monotonic())
    while not stop.is_set() and not leadership.lost.is_set():
        now = time.monotonic()
        if leadership.valid():
            say("wrote", now)
        await asyncio.sleep(0.02)
    if leadership.lost.is_set():
        say("lost", time.monotonic())
    await leadership.release()
    say("released", time.monotonic())


asyncio.run(main(*sys.argv[1:]))
