"""The cluster's DNS server, which resolves names of pods behind headless services by the API server's Endpoints."""

from collections.abc import Callable
from typing import Any

from dnslib import QTYPE, RCODE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSLogger, DNSServer

DOMAIN = "cluster.local"
TIME_TO_LIVE = 1
"""Seconds; short, since a restarted pod has another address."""
EndpointsReader = Callable[[str, str], dict[str, Any] | None]
"""(namespace, service) to the Endpoints object; None if it does not exist."""


def addresses(name: str, read: EndpointsReader) -> list[str] | None:
    """Addresses of `<pod>.<service>.<namespace>.svc.cluster.local`, or of the service; None for unknown names."""
    suffix = f".svc.{DOMAIN}"
    labels = name.rstrip(".").lower().removesuffix(suffix).split(".")
    if not name.rstrip(".").lower().endswith(suffix) or len(labels) not in (2, 3):
        return None
    *host, service, namespace = labels
    endpoints = read(namespace, service)
    if endpoints is None:
        return None
    # With publishNotReadyAddresses all pods are in `addresses`; other pods must not be found before they are ready.
    found = [
        entry["ip"]
        for subset in endpoints.get("subsets") or ()
        for entry in subset.get("addresses") or ()
        if not host or entry.get("hostname") == host[0]
    ]
    return found or None


class _Resolver(BaseResolver):  # type: ignore[misc]  # dnslib has no types
    def __init__(self, read: EndpointsReader) -> None:
        self._read = read

    def resolve(self, request: DNSRecord, handler: object) -> DNSRecord:
        reply = request.reply()
        found = addresses(str(request.q.qname), self._read)
        if found is None:
            reply.header.rcode = RCODE.NXDOMAIN
        elif request.q.qtype in (QTYPE.A, QTYPE.ANY):
            for address in found:
                reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address), ttl=TIME_TO_LIVE))
        return reply


class ClusterDns:
    """Answers on port 53 of an address until it is stopped."""

    def __init__(self, address: str, read: EndpointsReader) -> None:
        options = {"address": address, "port": 53, "logger": DNSLogger(logf=lambda _: None)}
        self._servers = [DNSServer(_Resolver(read), tcp=tcp, **options) for tcp in (False, True)]

    def start(self) -> None:
        for server in self._servers:
            server.start_thread()

    def stop(self) -> None:
        for server in self._servers:
            server.stop()
            server.server.server_close()
