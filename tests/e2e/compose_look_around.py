"""What code that runs at a site could do there, found by trying it; compose_faults.py runs it inside site-1."""

import json
import os
import socket
import ssl
import urllib.error
import urllib.request

FOLDERS = ("/", "/keys", "/site", "/state", "/tmp", "/federation")
PLACES = {"superlink": 9092, "site-2": 9094, "1.1.1.1": 443, "pypi.org": 443}


def reaches(place: str) -> bool:
    try:
        socket.create_connection((place, PLACES[place]), 3).close()
    except OSError:
        return False
    return True


def control() -> int:
    """What the superlink answers to who wants to start a run."""
    knows = ssl.create_default_context(cafile="/keys/ca.crt")
    asked = urllib.request.Request("https://superlink:9092/v1/control/start-run", b"")
    try:
        with urllib.request.urlopen(asked, context=knows, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    found = {
        "user": "root" if os.getuid() == 0 else "not root",
        "writes": [folder for folder in FOLDERS if os.access(folder, os.W_OK)],
        "reaches": [place for place in PLACES if reaches(place)],
        "control": control(),
    }
    print(json.dumps(found))
