"""The small files of tools/bench/home, and from the output of fio to its table.

    home.py create FOLDER            2000 files of up to 8 KiB in 20 folders of FOLDER/tree; prints seconds
    home.py read FOLDER              lists and reads them with tar
    home.py remove FOLDER            removes them with rm
    home.py add SCRATCH SERVER ROW   one measurement as a line of JSON (TICKS and HZ in the environment)
    home.py row RESULTS ROW          the medians of one row as one line of text
    home.py table RESULTS            everything as a Markdown table
"""

import json
import os
import statistics
import subprocess
import sys
import time

from table import fio_report

FILES = 2000
# Row: what it is called, and the unit in which it is measured.
ROWS = {
    "write": ("seq write 1M + fsync", "MB/s"),
    "cold": ("seq read 1M cold", "MB/s"),
    "warm": ("seq read 1M warm", "MB/s"),
    "cached": ("seq read 1M again", "MB/s"),
    "randread": ("randread 4k direct", "IOPS"),
    "randread4": ("randread 4k direct x4", "IOPS"),
    "randwrite": ("randwrite 4k direct", "IOPS"),
    "fsync": ("randwrite 4k + fsync", "IOPS"),
    "create": ("create 2000 files", "s"),
    "read": ("stat + read them", "s"),
    "remove": ("remove them", "s"),
}
PEER = "gocryptfs"


def create(folder):
    tree = f"{folder}/tree"
    os.makedirs(tree)
    for number in range(FILES):
        if number % 100 == 0:
            os.makedirs(f"{tree}/{number // 100}")
        with open(f"{tree}/{number // 100}/f{number}", "wb") as file:
            file.write(b"x" * (number % 64 * 128))


def read(folder):
    # Through a pipe: tar reads no file when its output is /dev/null.
    command = 'tar cf - -C "$1" tree | cat >/dev/null'
    subprocess.run(["bash", "-o", "pipefail", "-c", command, "bash", folder], check=True)


def remove(folder):
    subprocess.run(["rm", "-r", f"{folder}/tree"], check=True)


def timed(work, folder):
    start = time.perf_counter()
    work(folder)
    print(time.perf_counter() - start)


def from_fio(path, row, unit):
    with open(path, encoding="utf-8", errors="replace") as file:
        job = fio_report(file.read())["jobs"][0]
    side = job["read"] if job["read"]["total_ios"] else job["write"]
    if job["error"] or not side["total_ios"]:
        raise SystemExit(f"home.py: fio did nothing in {row}, error {job['error']}")
    return {
        "value": side["bw_bytes"] / 1e6 if unit == "MB/s" else side["iops"],
        "p99": side["clat_ns"]["percentile"]["99.000000"] / 1e3,
        "gib": side["io_bytes"] / 2**30,
    }


def add(scratch, server, row):
    unit = ROWS[row][1]
    if unit == "s":
        with open(f"{scratch}/seconds", encoding="utf-8") as file:
            run = {"value": float(file.read()), "p99": 0, "gib": 1}
    else:
        run = from_fio(f"{scratch}/fio.json", row, unit)
    cpu = int(os.environ["TICKS"]) / int(os.environ["HZ"]) / run.pop("gib")
    print(json.dumps({"server": server, "row": row, "cpu": cpu, **run}))


def medians(path):
    """{row: {server: {field: median}}}, in the order of the first measurement."""
    runs = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            run = json.loads(line)
            runs.setdefault(run["row"], {}).setdefault(run["server"], []).append(run)
    middle = lambda list_: {
        field: statistics.median(run[field] for run in list_) for field in ("value", "p99", "cpu")
    }
    return {row: {server: middle(list_) for server, list_ in servers.items()} for row, servers in runs.items()}


def ratio(servers, server, mark, unit):
    """Speed by that of the mark: of seconds, few are fast."""
    if mark not in servers:
        return "-"
    own, other = servers[server]["value"], servers[mark]["value"]
    return f"{other / own if unit == 's' else own / other:.2f}"


def unencrypted(server):
    """What a server is compared with: the one without encryption that is mounted in the same way."""
    return "passthrough-shared" if server.endswith("-shared") else "passthrough"


def shown(value, unit):
    return f"{value:.3f}" if unit == "s" else f"{value:.0f}"


def print_row(path, row):
    servers, (name, unit) = medians(path)[row], ROWS[row]
    cells = (
        f"{server} {shown(m['value'], unit)} ({ratio(servers, server, PEER, unit)}, "
        f"{ratio(servers, server, unencrypted(server), unit)})"
        for server, m in servers.items()
    )
    print(f"{name}, {unit} (x {PEER}, x pass): " + ", ".join(cells), flush=True)


def print_table(path):
    print(f"| row | server | | unit | p99 us | CPU s | x {PEER} | x pass |")
    print("|---|---|---:|---|---:|---:|---:|---:|")
    for row, servers in medians(path).items():
        name, unit = ROWS[row]
        for server, m in servers.items():
            p99 = f"{m['p99']:.0f}" if m["p99"] else "-"
            print(
                f"| {name} | {server} | {shown(m['value'], unit)} | {unit} | {p99} | {m['cpu']:.2f} "
                f"| {ratio(servers, server, PEER, unit)} | {ratio(servers, server, unencrypted(server), unit)} |"
            )


def main(words):
    match words:
        case ["create" | "read" | "remove" as work, folder]:
            timed({"create": create, "read": read, "remove": remove}[work], folder)
        case ["add", scratch, server, row]:
            add(scratch, server, row)
        case ["row", path, row]:
            print_row(path, row)
        case ["table", path]:
            print_table(path)
        case _:
            raise SystemExit(__doc__)


main(sys.argv[1:])
