#!/usr/bin/env python3
"""Reads and writes version 1 of the formats in docs/format.md, with nothing of Coffer.

    coffer_v1.py make FOLDER             write the golden VM folder
    coffer_v1.py make-names FOLDER       write the golden VM folder with encrypted names
    coffer_v1.py read FOLDER             open the VM folder made from the golden passphrases, print what
                                         is inside as JSON (SHA-256 of each plaintext)
    coffer_v1.py plain FOLDER DISK       write the plaintext of a disk to standard output
    coffer_v1.py example                 print the numbers of the worked examples

Needs the Python package `cryptography` (44 or later, for Argon2id). It is a second opinion on the
formats, written from docs/format.md alone, and holds test keys only.
"""
import base64
import hashlib
import hmac
import json
import os
import sys
import uuid

from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VM = "00000000-0000-4000-8000-000000000001"
HOME_KEY = bytes(range(0xA0, 0xC0))
DISKS = {
    "root": dict(id="00000000-0000-4000-8000-000000000002", size=32768, unit=4096, state="ready",
                 key=bytes(range(64)), written=[(0, 4096), (8192, 9728), (10240, 12288), (28672, 32768)]),
    "old": dict(id="00000000-0000-4000-8000-000000000003", size=4608, unit=512, state="importing",
                key=bytes(range(64, 128)), written=[(0, 512), (4096, 4608)]),
}
NAMES_VM, NAMES_HOME_KEY = "00000000-0000-4000-8000-000000000004", bytes(range(0xB0, 0xD0))
LONGEST = "n" * 175
NOTES, NONCE = 5000, bytes(range(0xC0, 0xE0))
LINK_TARGET = b"notes.txt"
XATTR, XATTR_VALUE, XATTR_NONCE = b"user.comment", b"of the golden file", bytes(range(0xE0, 0xF0))
LEASES = {
    "exclusive.0000000000000001": dict(host="00000000-0000-4000-8000-00000000000a", host_name="host-a",
                                       since=1764037800, renewed=1764037925, standing="released"),
    "shared.00000000-0000-4000-8000-00000000000b": dict(host="00000000-0000-4000-8000-00000000000b",
                                                        host_name="host-b", since=1764038000, renewed=1764038005,
                                                        standing="held"),
}
PASSPHRASES = {"golden/1": b"golden", "recovery/2": b"golden recovery"}


def kek(key_id):
    """The test key-encrypting key of this id: Argon2id with 8 MiB, 1 pass, 1 lane."""
    salt = bytes(range(16))
    return Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=8192).derive(PASSPHRASES[key_id])


def hkdf(key, info, length, hash_=hashes.SHA256()):
    return HKDF(algorithm=hash_, length=length, salt=None, info=info).derive(key)


def wrap(key_id, key):
    k = kek(key_id)
    check = hkdf(k, b"coffer v1 kek check", 8)
    return {"key": key_id, "alg": "A256KW", "check": check.hex(), "blob": keywrap.aes_key_wrap(k, key).hex()}


def seal(body, key, info):
    line = json.dumps(body, separators=(",", ":")).encode()
    mac = hmac.digest(hkdf(key, info, 32), line, "sha256").hex()
    return line + b'\n{"mac":"' + mac.encode() + b'"}\n'


def unseal(data, format_, info):
    line, mac, end = data.split(b"\n")
    assert end == b"" and len(mac) == 74
    body = json.loads(line)
    assert (body["format"], body["version"]) == (format_, 1)
    names = body.get("policy", {}).get("names", "plain")
    assert (names, body["features"]) in (("plain", []), ("encrypted", ["encrypted-names"]))
    key = None
    for w in body["wraps"]:
        assert w["alg"] == "A256KW"
        assert hkdf(kek(w["key"]), b"coffer v1 kek check", 8).hex() == w["check"]
        opened = keywrap.aes_key_unwrap(kek(w["key"]), bytes.fromhex(w["blob"]))
        assert key is None or key == opened
        key = opened
    expected = hmac.digest(hkdf(key, info, 32), line, "sha256").hex()
    assert hmac.compare_digest(json.loads(mac)["mac"], expected), "MAC"
    return body, key


def xts(key, sector, data, encrypt):
    """One data unit; `sector` is the number of its first 512-byte sector."""
    cipher = Cipher(algorithms.AES(key), modes.XTS(sector.to_bytes(16, "little")))
    one = cipher.encryptor() if encrypt else cipher.decryptor()
    return one.update(data) + one.finalize()


def decipher(key, unit, payload):
    """Plaintext of a payload: unit by unit, then zeros for every sector of zero ciphertext."""
    plain = bytearray()
    for at in range(0, len(payload), unit):
        plain += xts(key, at // 512, payload[at:at + unit], False)
    for at in range(0, len(payload), 512):
        if payload[at:at + 512] == bytes(512):
            plain[at:at + 512] = bytes(512)
    return bytes(plain)


def pattern(at):
    return (at + at // 256) & 0xFF


def golden_plain(disk):
    plain = bytearray(disk["size"])
    for start, end in disk["written"]:
        plain[start:end] = bytes(map(pattern, range(start, end)))
    return bytes(plain)


def golden_payload(disk):
    """The ciphertext; sectors that were not written stay zero."""
    plain, payload = golden_plain(disk), bytearray(disk["size"])
    for at in range(0, disk["size"], disk["unit"]):
        unit = xts(disk["key"], at // 512, plain[at:at + disk["unit"]], True)
        for start, end in disk["written"]:
            for sector in range(max(start, at), min(end, at + disk["unit"]), 512):
                payload[sector:sector + 512] = unit[sector - at:sector - at + 512]
    return bytes(payload)


def golden_safe():
    body = {"format": "coffer-safe", "version": 1, "features": [], "sequence": 1, "id": VM, "name": "golden",
            "policy": {"on_key_loss": "keep", "names": "plain"},
            "wraps": [wrap(key_id, HOME_KEY) for key_id in PASSPHRASES]}
    return seal(body, HOME_KEY, b"coffer v1 safe mac")


def golden_names_safe():
    """Of another VM, whose names are encrypted: that is a feature of its safe."""
    body = {"format": "coffer-safe", "version": 1, "features": ["encrypted-names"], "sequence": 1, "id": NAMES_VM,
            "name": "golden-names", "policy": {"on_key_loss": "keep", "names": "encrypted"},
            "wraps": [wrap("golden/1", NAMES_HOME_KEY)]}
    return seal(body, NAMES_HOME_KEY, b"coffer v1 safe mac")


def golden_descriptor(name, disk):
    body = {"format": "coffer-disk", "version": 1, "features": [], "sequence": 1, "id": disk["id"], "name": name,
            "vm": VM, "size": disk["size"], "cipher": "aes-xts-plain64", "unit": disk["unit"],
            "payload": name + ".data", "state": disk["state"], "wraps": [wrap("golden/1", disk["key"])]}
    return seal(body, disk["key"], b"coffer v1 disk mac")


def file_key(nonce, home_key=HOME_KEY):
    return hkdf(home_key, b"coffer v1 file" + nonce, 64, hashes.SHA512())


def golden_home_file(vm=VM, home_key=HOME_KEY):
    """A home file of 5000 plain bytes: header page, two units, 904 bytes that only carry the size."""
    header = b"COFFERHF" + (1).to_bytes(4, "little") + bytes(4) + NONCE + uuid.UUID(vm).bytes
    header += hmac.digest(hkdf(home_key, b"coffer v1 file mac", 32), header, "sha256")
    plain = bytes(map(pattern, range(NOTES))).ljust(8192, b"\0")
    units = [xts(file_key(NONCE, home_key), at // 512, plain[at:at + 4096], True) for at in (0, 4096)]
    return header.ljust(4096, b"\0") + b"".join(units) + bytes(NOTES % 4096)


def siv_text(plain, info):
    """What AES-SIV makes of it under the key of this label, the vector in front, in base64url without padding."""
    sealed = AESSIV(hkdf(NAMES_HOME_KEY, info, 64, hashes.SHA512())).encrypt(plain, None)
    return base64.urlsafe_b64encode(sealed).rstrip(b"=")


def encrypted_name(name):
    return siv_text(name.encode(), b"coffer v1 name").decode()


def encrypted_link():
    return b"coffer2." + siv_text(LINK_TARGET, b"coffer v1 link")


def golden_link():
    """What a link to notes.txt holds: a tag, which is half of a MAC in hex, and the target."""
    tag = hmac.digest(hkdf(HOME_KEY, b"coffer v1 link mac", 32), LINK_TARGET, "sha256")[:16]
    return b"coffer1." + tag.hex().encode() + b"." + LINK_TARGET


def golden_xattr():
    """The stored value of an extended attribute: version, nonce, and what AES-SIV makes of it."""
    sealed = AESSIV(hkdf(HOME_KEY, b"coffer v1 xattr", 64, hashes.SHA512())).encrypt(XATTR_VALUE, [XATTR, XATTR_NONCE])
    return b"\x01" + XATTR_NONCE + sealed


def golden_lease(name, lease):
    body = {"format": "coffer-lease", "version": 1, "features": [], "vm": VM, "use": name.split(".")[0], "epoch": 1,
            "host": lease["host"], "host_name": lease["host_name"], "since": lease["since"],
            "renewed": lease["renewed"], "standing": lease["standing"]}
    return seal(body, HOME_KEY, b"coffer v1 lease mac")


def write_file(path, data):
    with open(path, "wb") as file:
        file.write(data)


def read_file(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def make(folder):
    os.makedirs(os.path.join(folder, "disks"), exist_ok=True)
    write_file(os.path.join(folder, "vm.safe"), golden_safe())
    os.makedirs(os.path.join(folder, "home"), exist_ok=True)
    write_file(os.path.join(folder, "home", "notes.txt"), golden_home_file())
    write_file(os.path.join(folder, "home", "empty"), b"")
    os.symlink(golden_link(), os.path.join(os.fsencode(folder), b"home", b"current"))
    os.makedirs(os.path.join(folder, "leases"), exist_ok=True)
    for name, lease in LEASES.items():
        write_file(os.path.join(folder, "leases", name), golden_lease(name, lease))
    for name, disk in DISKS.items():
        write_file(os.path.join(folder, "disks", name + ".disk"), golden_descriptor(name, disk))
        write_file(os.path.join(folder, "disks", name + ".data"), golden_payload(disk))


def make_names(folder):
    """The folder `logs` with notes.txt in it, a file of the same name beside it, and a link."""
    home = os.path.join(folder, "home")
    os.makedirs(os.path.join(home, encrypted_name("logs")))
    write_file(os.path.join(folder, "vm.safe"), golden_names_safe())
    stored = golden_home_file(NAMES_VM, NAMES_HOME_KEY)
    for place in ("", encrypted_name("logs")):
        write_file(os.path.join(home, place, encrypted_name("notes.txt")), stored)
    os.symlink(encrypted_link(), os.path.join(os.fsencode(home), encrypted_name("current").encode()))


def open_disk(folder, vm, name):
    body, key = unseal(read_file(folder, "disks", name + ".disk"), "coffer-disk", b"coffer v1 disk mac")
    assert body["vm"] == vm and body["name"] == name and body["cipher"] == "aes-xts-plain64"
    payload = read_file(folder, "disks", body["payload"])
    return body, decipher(key, body["unit"], payload[:body["size"]])


def open_lease(folder, vm, home_key, name):
    line, mac, end = read_file(folder, "leases", name).split(b"\n")
    expected = hmac.digest(hkdf(home_key, b"coffer v1 lease mac", 32), line, "sha256").hex()
    assert end == b"" and mac == b'{"mac":"' + expected.encode() + b'"}', "MAC"
    body = json.loads(line)
    assert (body["format"], body["version"], body["features"], body["vm"]) == ("coffer-lease", 1, [], vm)
    own_name = {"exclusive": "exclusive.%016x" % body["epoch"], "shared": "shared." + body["host"]}
    assert name == own_name[body["use"]]
    return {"host_name": body["host_name"], "standing": body["standing"]}


def read(folder):
    safe, home_key = unseal(read_file(folder, "vm.safe"), "coffer-safe", b"coffer v1 safe mac")
    disks = {}
    for file in sorted(os.listdir(os.path.join(folder, "disks"))):
        if file.endswith(".disk"):
            body, plain = open_disk(folder, safe["id"], file[:-5])
            disks[file[:-5]] = {"size": body["size"], "sha256": hashlib.sha256(plain).hexdigest()}
    there = os.path.isdir(os.path.join(folder, "leases"))
    leases = {name: open_lease(folder, safe["id"], home_key, name)
              for name in (os.listdir(os.path.join(folder, "leases")) if there else [])}
    print(json.dumps({"name": safe["name"], "sequence": safe["sequence"], "disks": disks, "leases": leases}))


def plain(folder, name):
    safe, _ = unseal(read_file(folder, "vm.safe"), "coffer-safe", b"coffer v1 safe mac")
    sys.stdout.buffer.write(open_disk(folder, safe["id"], name)[1])


def example():
    key = kek("golden/1")
    disk = DISKS["root"]
    print("kek        ", key.hex())
    print("check      ", hkdf(key, b"coffer v1 kek check", 8).hex())
    print("dek        ", disk["key"].hex())
    print("wrap       ", keywrap.aes_key_wrap(key, disk["key"]).hex())
    print("mac key    ", hkdf(disk["key"], b"coffer v1 disk mac", 32).hex())
    print("mac        ", json.loads(golden_descriptor("root", disk).split(b"\n")[1])["mac"])
    payload, text = golden_payload(disk), golden_plain(disk)
    for at in (0, 8192, 9712, 9728, 10240):
        tweak = (at // 4096 * 8).to_bytes(16, "little").hex()
        print(f"{at:6}  unit tweak {tweak}  plain {text[at:at + 16].hex()}  cipher {payload[at:at + 16].hex()}")
    print("sha256 of root.data ", hashlib.sha256(payload).hexdigest())
    stored = golden_home_file()
    print("home header ", stored[:96].hex())
    print("file key    ", file_key(NONCE).hex())
    print("home link   ", golden_link().decode())
    print("home xattr  ", "user.:u" + XATTR.decode()[5:], golden_xattr().hex())
    print("name key    ", hkdf(NAMES_HOME_KEY, b"coffer v1 name", 64, hashes.SHA512()).hex())
    for name in ("notes.txt", "logs", "current", "a", "A", LONGEST):
        print("stored name ", name, encrypted_name(name))
    print("link key    ", hkdf(NAMES_HOME_KEY, b"coffer v1 link", 64, hashes.SHA512()).hex())
    print("link        ", encrypted_link().decode())
    print("lease key   ", hkdf(HOME_KEY, b"coffer v1 lease mac", 32).hex())
    print("home data   ", stored[4096:4112].hex(), stored[8192:8208].hex(), "length", len(stored))


if __name__ == "__main__":
    verb, arguments = (sys.argv[1:2] or ["help"])[0], sys.argv[2:]
    verbs = {"make": make, "make-names": make_names, "read": read, "plain": plain, "example": example}
    if verb not in verbs:
        sys.exit(__doc__)
    verbs[verb](*arguments)
