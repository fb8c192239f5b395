#!/usr/bin/env python3
"""Computes vectors.txt: python3 vectors.py > vectors.txt"""
import hmac
import ipaddress
import struct

SECRET = b"sixteen bytes and more"
COOKIES = b"\x07" * 32
BEGUN = 1796040000, 123456789  # 2026-11-30 12:00:00.123456789 UTC


def mac(key, b):
    return hmac.digest(key, b, "sha256")


IDENTIFIER = mac(SECRET, b"sixfour rendezvous: identifier")[:8]
KEY = mac(SECRET, b"sixfour rendezvous: MAC")


def address(a):
    a = ipaddress.ip_address(a)
    return a.packed if a.version == 6 else b"\0" * 10 + b"\xff\xff" + a.packed


def message(kind, outcome, counter, time, lifetime=0, seen=("::", 0), cookie=b"\0" * 16, listeners=(0, 0)):
    b = struct.pack(">BBBBI", 0xF5, 1 << 3 | 7, kind, outcome, counter & 0xFFFFFFFF) + IDENTIFIER
    b += struct.pack(">QIHH", *time, lifetime, seen[1]) + address(seen[0]) + cookie
    b += struct.pack(">QII", *listeners, 0)
    return b + mac(KEY, b)[:16]


def exchange(name, came, at, listeners, period, outcome, second):
    cookie = mac(COOKIES, IDENTIFIER + struct.pack(">Q", period) + b"".join(address(a) + struct.pack(">H", p) for a, p in (came, at)))[:16]
    print(f"{name} hello 1:", message(1, 0, -1, BEGUN, lifetime=100).hex())
    print(f"{name} answer 1:", message(2, outcome, -1, BEGUN, seen=came, cookie=cookie, listeners=listeners).hex())
    print(f"{name} hello 2:", message(1, 0, 0, second, lifetime=100, cookie=cookie).hex())
    print(f"{name} answer 2:", message(2, 0, 0, second, seen=came, cookie=cookie, listeners=listeners).hex())


print("# Made by vectors.py.")
s, n = BEGUN
# The clocks differ by 40 ms, so the caller's second time is its own, one nanosecond later.
exchange("v4", ("198.51.100.7", 40001), ("203.0.113.20", 5555), (s, n + 40_000_000), 0, 1, (s, n + 1))
# By an hour: the listener refuses the first time, and the second is its own.
exchange("v6", ("2001:db8::10", 5555), ("2001:db8::20", 6080), (s + 3600, n), 60, 2, (s + 3600, n))
