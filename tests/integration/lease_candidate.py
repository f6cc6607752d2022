"""A candidate for a lease, as a process for tests to kill and freeze: `lease_candidate.py KUBECONFIG NAMESPACE DURATION`.

Prints one event per line, with the monotonic time, which all processes of a machine share: `standby`, `leader TIME`,
`lost TIME`, `released TIME`, and about every 20 ms while it may write `wrote TIME`, taken just before it checks that.
"""

import asyncio
import signal
import sys
import time

from seele_operator.kube.lease import Leadership


def report(*words: object) -> None:
    print(*words, flush=True)


async def main(kubeconfig: str, namespace: str, duration: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    leadership = await Leadership.connect(kubeconfig, namespace=namespace, duration=float(duration))
    report("standby")
    await leadership.acquire()
    report("leader", time.monotonic())
    while not stop.is_set() and not leadership.lost.is_set():
        now = time.monotonic()
        if leadership.valid():
            report("wrote", now)
        await asyncio.sleep(0.02)
    if leadership.lost.is_set():
        report("lost", time.monotonic())
    await leadership.release()
    report("released", time.monotonic())


asyncio.run(main(*sys.argv[1:]))
