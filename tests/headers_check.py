"""Asks a server for every kind of answer and parses what it says: called by scripts/headers-check.sh."""

import http.client
import json
import os
import subprocess
import sys
import tempfile

import http_sf

RULES = """
lists:
  banned: [198.51.100.0/24]
rules:
  - { name: banned, match: { client: "list:banned" }, deny: true }
  - { name: all, key: [], limit: 1000/s }
  - { name: a-b_9, key: ip, limit: 4/day }
  - { name: shadow-of-it, mode: shadow, key: ip, limit: 1 per 3 day }
  - { name: slow, match: { path: /slow }, algorithm: slidingwindow, key: [], limit: 2/hour }
  - { name: fixed, match: { path: /fixed }, algorithm: fixedwindow, key: [path, method], limit: 1/min }
  - { name: costly, match: { path: /costly }, key: ip, limit: 10/min, cost: 50 }
  - { name: largest, match: { path: /large }, algorithm: gcra, key: [], limit: 1000000000/s }
  - { name: huge, match: { path: /huge }, key: [], limit: 1000000/s, burst: 1125899906842624 }
"""
ASKED = [
    ("192.0.2.1", "/api", 6),
    ("192.0.2.2", "/slow", 4),
    ("192.0.2.3", "/fixed", 3),
    ("192.0.2.4", "/costly", 1),
    ("192.0.2.5", "/large", 2),
    ("192.0.2.6", "/huge", 1),
    ("198.51.100.1", "/api", 1),
    ("2001:db8::1", "/api", 5),
]
LISTS = ["ratelimit", "ratelimit-policy", "x-ratelimit-shadow"]
NUMBERS = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"]


def check(response, body):
    """Parses an answer; how many of its fields were parsed."""
    parsed = 0
    names = {}
    for field in LISTS:
        value = response.getheader(field)
        if value is None:
            continue
        items = http_sf.parse(value.encode(), tltype="list")
        for name, parameters in items:
            assert isinstance(name, str), (field, value)
            wanted = {"q", "w"} if field == "ratelimit-policy" else {"r", "t"}
            assert set(parameters) == wanted, (field, value)
            assert all(type(number) is int and 0 <= number < 10**15 for number in parameters.values()), value
        names[field] = sorted(name for name, _ in items)
        parsed += 1
    assert names.get("ratelimit") == names.get("ratelimit-policy"), names
    for field in NUMBERS:
        value = response.getheader(field)
        if value is not None:
            assert type(http_sf.parse(value.encode(), tltype="item")[0]) is int, (field, value)
            parsed += 1
    told = json.loads(body)
    if response.status == 429:
        assert set(told["violated-policies"]) <= set(names["ratelimit"]), told
        assert response.getheader("retry-after") is not None
    if response.status >= 400:
        assert response.getheader("content-type") == "application/problem+json"
        assert told["status"] == response.status
    return parsed


def main(program):
    with tempfile.TemporaryDirectory() as folder:
        rules = os.path.join(folder, "rules.yaml")
        with open(rules, "w", encoding="utf-8") as file:
            file.write(RULES)
        settings = {
            "PORT": "0",
            "BIND_ADDRESS": "127.0.0.1",
            "RULES_FILE": rules,
            "TRUSTED_PROXIES": "loopback",
            "RATELIMIT_SHADOW_HEADER": "on",
            "LOG_FORMAT": "json",
        }
        server = subprocess.Popen([program], env=settings, cwd=folder, stderr=subprocess.PIPE, text=True)
        try:
            for line in server.stderr:
                told = json.loads(line)
                if told["message"] == "listening":
                    break
            else:
                sys.exit("the server ended before it listened")
            host, port = told["address"].rsplit(":", 1)
            statuses, fields = {}, 0
            for client, path, times in ASKED:
                for _ in range(times):
                    connection = http.client.HTTPConnection(host, int(port), timeout=30)
                    connection.request("GET", path, headers={"X-Forwarded-For": client})
                    response = connection.getresponse()
                    fields += check(response, response.read())
                    statuses[response.status] = statuses.get(response.status, 0) + 1
                    connection.close()
        finally:
            server.terminate()
            server.wait()
    assert {200, 403, 404, 422, 429} <= set(statuses), statuses
    print(f"{sum(statuses.values())} answers, {fields} fields parsed; by status {dict(sorted(statuses.items()))}")


main(sys.argv[1])
