"""`show --json`: the devices for programs that would rather not split `dump` at its tabs."""

import json
from collections.abc import Iterable

from wgd.configuration import NO_KEY
from wgd.constants import SECOND_NS
from wgd.ctl.values import base64_of, endpoint_text, prefix_text
from wgd.uapi.client import Device, Peer

_Object = dict[str, object]


def to_json(devices: Iterable[Device]) -> str:
    """Return an object with a member for each device; the names are those of the `wg-json` script.

    Members marked * are left out when there is nothing to tell. Secrets are in it, as in `dump`.

        { "wg0": {                       the interface
            "privateKey": "base64", *
            "publicKey": "base64",  *
            "listenPort": 51820,    *
            "fwmark": 51820,        *    a number, although `wg` shows it in hexadecimal
            "peers": {
              "base64": {                the peer's public key
                "presharedKey": "base64",        *
                "endpoint": "192.0.2.1:51820",   *
                "latestHandshake": 1700000000,   *   Unix time in seconds
                "transferRx": 0,                     bytes
                "transferTx": 0,
                "persistentKeepalive": 25,       *   seconds
                "allowedIps": ["10.0.0.0/8"]
              } } } }
    """
    return json.dumps({device.name: _device(device) for device in devices}, indent=2) + "\n"


def _device(device: Device) -> _Object:
    view: _Object = {}
    if device.private_key != NO_KEY:
        view["privateKey"] = base64_of(device.private_key)
    if device.public_key != NO_KEY:
        view["publicKey"] = base64_of(device.public_key)
    if device.listen_port:
        view["listenPort"] = device.listen_port
    if device.fwmark:
        view["fwmark"] = device.fwmark
    view["peers"] = {base64_of(peer.public_key): _peer(peer) for peer in device.peers}
    return view


def _peer(peer: Peer) -> _Object:
    view: _Object = {}
    if peer.preshared_key != NO_KEY:
        view["presharedKey"] = base64_of(peer.preshared_key)
    if peer.endpoint is not None:
        view["endpoint"] = endpoint_text(peer.endpoint)
    if handshake_seconds := peer.last_handshake_ns // SECOND_NS:
        view["latestHandshake"] = handshake_seconds
    view["transferRx"] = peer.received_bytes
    view["transferTx"] = peer.sent_bytes
    if peer.persistent_keepalive_seconds:
        view["persistentKeepalive"] = peer.persistent_keepalive_seconds
    view["allowedIps"] = [prefix_text(prefix) for prefix in peer.allowed_ips]
    return view
