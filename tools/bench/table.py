"""From the output of fio to the tables of tools/bench/nbd.

    table.py add FIO.json SERVER ROW CONNECTIONS   one measurement as a line of JSON (TICKS and HZ in the environment)
    table.py row RESULTS ROW CONNECTIONS           the medians of one row as one line of text
    table.py table RESULTS                         everything as Markdown tables
"""

import json
import os
import statistics
import sys

MARK = "nbdkit"  # the server that the others are compared with


def fio_report(text):
    """The report in text that other things were printed into: the first JSON object that has jobs."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            report, _ = decoder.raw_decode(text, at)
            if report.get("jobs"):
                return report
        except json.JSONDecodeError:
            pass
        at = text.find("{", at + 1)
    raise SystemExit("table.py: no report of fio in its output")


def add(path, server, row, connections):
    with open(path, encoding="utf-8", errors="replace") as file:
        job = fio_report(file.read())["jobs"][0]
    if job["error"]:
        raise SystemExit(f"table.py: fio reports error {job['error']} for {server}, {row}")
    side = job["write"] if "write" in row else job["read"]
    if not side["total_ios"]:
        raise SystemExit(f"table.py: {server} did nothing in {row}")
    seconds = int(os.environ["TICKS"]) / int(os.environ["HZ"])
    print(json.dumps({
        "server": server,
        "row": row,
        "connections": int(connections),
        "rate": side["bw_bytes"] / 1e6,
        "iops": side["iops"],
        "p99": side["clat_ns"]["percentile"]["99.000000"] / 1e3,
        "cpu": seconds / (side["io_bytes"] / 2**30),
    }))


def medians(path):
    """{connections: {row: {server: {field: median}}}}, all in the order of the first measurement."""
    runs = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            run = json.loads(line)
            row = runs.setdefault(run["connections"], {}).setdefault(run["row"], {})
            row.setdefault(run["server"], []).append(run)
    fields = ("rate", "iops", "p99", "cpu")
    middle = lambda list_: {field: statistics.median(run[field] for run in list_) for field in fields}
    return {
        connections: {
            row: {server: middle(list_) for server, list_ in servers.items()} for row, servers in rows.items()
        }
        for connections, rows in runs.items()
    }


def name(row):
    rw, block, depth = row.split(":")
    return f"{rw} {block} qd{depth}"


def ratio(servers, server):
    """Speed by that of the mark."""
    mark = servers.get(MARK)
    return f"{servers[server]['iops'] / mark['iops']:.2f}" if mark else "-"


def print_row(path, row, connections):
    servers = medians(path)[int(connections)][row]
    cells = (f"{server} {m['rate']:.0f} MB/s ({ratio(servers, server)})" for server, m in servers.items())
    print(f"{name(row)}, {connections} conn: " + ", ".join(cells), flush=True)


def print_tables(path):
    for connections, rows in medians(path).items():
        print(f"{connections} connection{'s' if connections > 1 else ''}:\n")
        print("| row | server | MB/s | IOPS | p99 us | CPU s/GiB | x nbdkit |")
        print("|---|---|---:|---:|---:|---:|---:|")
        for row, servers in rows.items():
            for server, m in servers.items():
                print(
                    f"| {name(row)} | {server} | {m['rate']:.0f} | {m['iops']:.0f} | {m['p99']:.0f} "
                    f"| {m['cpu']:.2f} | {ratio(servers, server)} |"
                )
        print()


def main(words):
    match words:
        case ["add", *rest] if len(rest) == 4:
            add(*rest)
        case ["row", path, row, connections]:
            print_row(path, row, connections)
        case ["table", path]:
            print_tables(path)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
