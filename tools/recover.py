#!/usr/bin/env python3
"""Open the VMs of Coffer without Coffer.

This file is a promise to everyone who stores VMs with Coffer: the data is yours, whatever becomes of
us. It opens a VM folder with nothing but the backup of the native key provider, its passphrase,
Python 3.9 or later, and the PyPI package `cryptography` (44 or later). It shares no code with Coffer;
it follows docs/format.md and is tested against what Coffer writes. Keep a copy of both beside your
backup, and run `info` now and then: it tells you that the backup works.

It verifies every MAC before it trusts what stands in a file, and changes nothing in a VM folder, with
one exception: `encrypt` replaces the payload of one disk. Unlike Coffer it holds keys in ordinary
memory: use it on a machine that you trust.
"""

import argparse, base64, contextlib, errno, fcntl, getpass, hashlib, hmac, json, os, stat, struct, sys, uuid

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV
    from cryptography.hazmat.primitives.hashes import SHA256, SHA512
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
except ImportError as error:  # --help works without it; main() says so for everything else
    Cipher, MISSING = None, str(error)

PAGE, SECTOR, CHUNK = 4096, 512, 1 << 20  # bytes: header and unit of home files; tweak step; one read
ZEROS = bytes(PAGE)
EXIT_CODES = """exit codes: 0 all is well; 2 usage; 4 a file is missing; 6 the VM is in use; 8 backup or
passphrase do not fit; 9 damaged, or of an unknown version; 10 storage fault; 13 `cryptography` is missing"""


class Refused(Exception):
    """An expected failure: exit code, and a sentence for people."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


# Keys: HKDF (RFC 5869, no salt), AES key wrap (RFC 3394), Argon2id (RFC 9106), HMAC-SHA-256 (RFC 2104)


def hkdf(key, info, length=32, hash_type="SHA256"):
    return HKDF(SHA512() if hash_type == "SHA512" else SHA256(), length, None, info).derive(key)


def check_value(kek):
    """Public; tells a wrong KEK from a damaged wrap."""
    return hkdf(kek, b"coffer v1 kek check")[:8].hex()


def unwrap(kek, blob, length, path):
    try:
        key = aes_key_unwrap(kek, bytes.fromhex(blob))
    except (InvalidUnwrap, ValueError):
        raise Refused(9, f"{path} is damaged: its wrapped key does not open") from None
    if len(key) != length:
        raise Refused(9, f"{path} is damaged: its key has {len(key)} bytes, not {length}")
    return key


class Sealed:
    """A two-line file. Line 1 is the body, line 2 the MAC over exactly the bytes of line 1."""

    def __init__(self, path, form, known=()):
        self.path = path
        with open(path, "rb") as file:
            self.line, _, rest = file.read(16 << 20).partition(b"\n")
        try:
            self.body = json.loads(self.line)
            found = (self.body["format"], self.body["version"], self.body["features"])
            if found[:2] != (form, 1) or not set(found[2]) <= set(known):
                raise Refused(9, f"{path} is {found[0]} version {found[1]} with features {found[2]}: "
                                 f"this opens {form} version 1 with features of {list(known)}")
            self.tag = bytes.fromhex(json.loads(rest)["mac"])
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise Refused(9, f"{path} is damaged: {e!r}") from None

    def verify(self, key, info):
        tag = hmac.new(hkdf(key, info), self.line, hashlib.sha256).digest()
        if not hmac.compare_digest(tag, self.tag):
            raise Refused(9, f"{self.path} is damaged or was edited: its MAC does not match")

    def open(self, backup, info, length):
        """Unwraps the data key by the first wrap that the backup has the KEK of; verifies the MAC."""
        for wrap in self.body["wraps"]:
            kek = backup.kek(wrap["key"])
            if wrap["alg"] == "A256KW" and kek and check_value(kek) == wrap["check"]:
                key = unwrap(kek, wrap["blob"], length, self.path)
                self.verify(key, info)
                return key
        ids = ", ".join(wrap["key"] for wrap in self.body["wraps"])
        raise Refused(8, f"{self.path} needs {ids}: not a key of this backup")


class Backup:
    """The native key provider: its root key, from which the KEK of every uid is derived."""

    def __init__(self, path, passphrase):
        sealed = Sealed(path, "coffer-keys")
        kdf = sealed.body["kdf"]
        cost = (kdf["memory_kib"], kdf["passes"], kdf["lanes"])
        if kdf["alg"] != "argon2id" or cost[0] > 1 << 20 or cost[1] > 16 or cost[2] > 16:
            raise Refused(9, f"{path}: its key derivation is unknown or out of bounds: {kdf['alg']} {cost}")
        kek = Argon2id(salt=bytes.fromhex(kdf["salt"]), length=32, memory_cost=cost[0],
                       iterations=cost[1], lanes=cost[2]).derive(passphrase)
        if check_value(kek) != sealed.body["check"]:
            raise Refused(8, f"the passphrase does not open {path}")
        self.root = unwrap(kek, sealed.body["root"], 32, path)
        sealed.verify(self.root, b"coffer v1 keys mac")
        self.body = sealed.body

    def kek(self, key_id):
        provider, _, uid = key_id.partition("/")
        if provider == self.body["provider"]:
            return hkdf(self.root, b"coffer v1 native kek " + uid.encode())


def open_safe(folder, backup):
    sealed = Sealed(os.path.join(folder, "vm.safe"), "coffer-safe", ["encrypted-names", "transit"])
    key, safe = sealed.open(backup, b"coffer v1 safe mac", 32), sealed.body
    # Wraps of a transit engine are passed over: it alone has the key.
    features = [feature for feature in safe["features"] if feature != "transit"]
    if (safe["policy"]["names"], features) not in (("plain", []), ("encrypted", ["encrypted-names"])):
        raise Refused(9, f"{sealed.path}: names are stored in a way that is not known here")
    return safe, key


class Names:
    """How names and targets of links are stored: as they are, or by AES-256-SIV (RFC 5297) in base64url."""

    def __init__(self, safe, home_key):
        self.key, self.encrypted = home_key, safe["policy"]["names"] == "encrypted"

    def opened(self, text, info):
        """What was sealed under this label; None for anything else. A value has one spelling only."""
        try:
            sealed = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
            if base64.urlsafe_b64encode(sealed).rstrip(b"=") != text or len(sealed) <= 16:
                return None
            return AESSIV(hkdf(self.key, info, 64, "SHA512")).decrypt(sealed, None)
        except (InvalidTag, ValueError):
            return None

    def plain(self, name):
        """The plain name of a stored one; None for one that was not made in the mounted home."""
        if not self.encrypted:
            return name
        plain = self.opened(os.fsencode(name), b"coffer v1 name")
        return None if plain is None else os.fsdecode(plain)

    def target(self, path):
        """Plain target of a link, in bytes. What authenticates it tells it from one that was planted in the storage."""
        stored = os.readlink(os.fsencode(path))
        if self.encrypted:
            target = self.opened(stored[8:], b"coffer v1 link") if stored.startswith(b"coffer2.") else None
        else:
            target = stored[41:]
            tag = hmac.new(hkdf(self.key, b"coffer v1 link mac"), target, hashlib.sha256).digest()[:16]
            if not hmac.compare_digest(stored[:41], b"coffer1." + tag.hex().encode() + b"."):
                target = None
        if target is None:
            raise Refused(9, f"{path} is damaged: it is a link that was not made in the mounted home, or was edited")
        return target


def strange(path):
    return Refused(9, f"{path} has a name that was not made in the mounted home, or was changed")


def walk(home, failed):
    """Yields each folder as its path, which is for people, a short path to it, names of folders and of the rest.
    Encrypted names are long, and paths of many of them longer than Linux takes."""
    for folder, subfolders, files, fd in os.fwalk(home, onerror=failed.append):
        yield folder, f"/proc/self/fd/{fd}", set(subfolders), files


def open_disk(folder, name, backup):
    """Descriptor, 64-byte disk key, path of the payload."""
    vm = open_safe(folder, backup)[0]["id"]
    sealed = Sealed(os.path.join(folder, "disks", name + ".disk"), "coffer-disk", ["transit"])
    key, disk = sealed.open(backup, b"coffer v1 disk mac", 64), sealed.body
    if (disk["vm"], disk["name"]) != (vm, name):
        raise Refused(9, f"{sealed.path} belongs to disk {disk['name']} of VM {disk['vm']}: it was moved here")
    if disk["cipher"] != "aes-xts-plain64" or disk["unit"] not in (512, 4096) or disk["size"] % disk["unit"]:
        raise Refused(9, f"{sealed.path}: its cipher, unit or size is not known here")
    return disk, key, os.path.join(folder, "disks", os.path.basename(disk["payload"]))


# Data: AES-256-XTS (IEEE 1619); the tweak is the number of the unit's first 512-byte sector (plain64)


def crypt(mode, key, unit, offset, data):
    """Whole units. A sector of ciphertext that is all zero is a hole: it reads as zeros."""
    out = bytearray(len(data))
    for at in range(0, len(data), unit):
        piece = data[at : at + unit]
        if piece == ZEROS[:unit]:
            continue
        xts = Cipher(algorithms.AES(key), modes.XTS(struct.pack("<QQ", (offset + at) // SECTOR, 0)))
        out[at : at + unit] = getattr(xts, mode)().update(piece)
        for s in range(0, unit if mode == "decryptor" else 0, SECTOR):
            if piece[s : s + SECTOR] == ZEROS[:SECTOR]:
                out[at + s : at + s + SECTOR] = ZEROS[:SECTOR]
    return bytes(out)


def data_ranges(fd, start, end):
    """What is not a hole between two positions, widened to whole chunks counted from `start`."""
    at = start
    while at < end:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
            hole = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as e:
            if e.errno == errno.ENXIO:  # only a hole is left
                return
            data, hole = at, end  # this file system does not tell
        begin = max(at, start + (data - start) // CHUNK * CHUNK)
        at = min(end, start - (start - hole) // CHUNK * CHUNK)
        yield from ((p, min(p + CHUNK, at)) for p in range(begin, at, CHUNK))


def copy(mode, key, unit, size, source, base, target, path):
    """En- or decrypts `size` bytes that begin at `base` of the source; zeros become holes."""
    os.ftruncate(target, size)
    for start, end in data_ranges(source, base, base - -size // unit * unit):
        data = os.pread(source, end - start, start)
        if len(data) < end - start:
            raise Refused(9, f"{path} ends at byte {start + len(data)}, which is too early")
        out = crypt(mode, key, unit, start - base, data)[: size - (start - base)]
        for at in range(0, len(out), PAGE):
            piece = out[at : at + PAGE]
            if piece != ZEROS[: len(piece)] and os.pwrite(target, piece, start - base + at) < len(piece):
                raise Refused(10, "a write was cut short: is the target full?")


@contextlib.contextmanager
def opened(path, flags, mode=0o600):
    fd = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def sync_folder(path):
    """Makes the names in a folder durable."""
    with opened(path or ".", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


# Commands


def cmd_keys(args, backup):
    body = backup.body
    print(f"provider {body['provider']}, sequence {body['sequence']}, {len(body['keys'])} keys recorded")
    for key_id in [f"{body['provider']}/{key['uid']}" for key in body["keys"]]:
        print(f"{key_id}  check {check_value(backup.kek(key_id))}")


def cmd_info(args, backup):
    def wrapped_by(body):
        return ", ".join(wrap["key"] for wrap in body["wraps"]) + "  (MAC verified)"

    safe, home_key = open_safe(args.folder, backup)
    print(f"vm   {safe['name']}  id {safe['id']}  {json.dumps(safe['policy'])}  key {wrapped_by(safe)}")
    problems, disks = [], os.path.join(args.folder, "disks")
    for name in sorted(n[:-5] for n in os.listdir(disks) if n.endswith(".disk")) if os.path.isdir(disks) else []:
        try:
            disk, _, payload = open_disk(args.folder, name, backup)
            print(f"disk {name}  {disk['size']} bytes  unit {disk['unit']}  {disk['state']}  key {wrapped_by(disk)}")
            if payload_info(payload).st_size < disk["size"]:
                raise Refused(9, f"{payload} is shorter than the disk")
        except (Refused, OSError) as e:
            problems.append(str(e))
    count, links, names, unread = 0, 0, Names(safe, home_key), []
    for folder, short, subfolders, files in walk(os.path.realpath(os.path.join(args.folder, "home")), unread):
        for path in (os.path.join(short, name) for name in [*subfolders, *files]):
            try:
                if names.plain(os.path.basename(path)) is None:
                    problems.append(str(strange(path)).replace(short, folder))
                if os.path.islink(path):
                    names.target(path)
                    links += 1
                elif stat.S_ISREG(os.lstat(path).st_mode):
                    with opened(path, os.O_RDONLY | os.O_NOFOLLOW) as fd:
                        home_file(fd, path, home_key, uuid.UUID(safe["id"]).bytes)
                        count += 1
            except (Refused, OSError) as e:
                problems.append(str(e).replace(short, folder))
    problems.extend(map(str, unread))
    print(f"home {count} files with sound headers, {links} links with sound tags, {safe['policy']['names']} names")
    if problems:
        raise Refused(9, "; ".join(problems))


def payload_info(path):
    info = os.lstat(path)
    if not stat.S_ISREG(info.st_mode):
        raise Refused(9, f"{path} is not a regular file: somebody put it there")
    return info


def cmd_disk(args, backup):
    disk, key, path = open_disk(args.folder, args.name, backup)
    payload_info(path)
    with opened(path, os.O_RDONLY | os.O_NOFOLLOW) as source:
        if os.lseek(source, 0, os.SEEK_END) < disk["size"]:
            raise Refused(9, f"{path} is shorter than the disk, which has {disk['size']} bytes")
        with opened(args.out, NEW) as target:
            copy("decryptor", key, disk["unit"], disk["size"], source, 0, target, path)
            os.fsync(target)
    sync_folder(os.path.dirname(args.out))
    print(f"{args.out}: {disk['size']} bytes, disk {disk['name']}, {disk['state']}")


def cmd_encrypt(args, backup):
    disk, key, path = open_disk(args.folder, args.name, backup)
    new = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.recover")
    with opened(args.input, os.O_RDONLY) as source, \
            opened(os.path.join(args.folder, ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW) as lock:
        if os.path.lexists(path):
            payload_info(path)
        length = os.lseek(source, 0, os.SEEK_END)
        if length != disk["size"]:
            raise Refused(2, f"{args.input} has {length} bytes, the disk {disk['size']}")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(6, f"{args.folder} is in use: detach its disks and unmount its home first") from None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)  # of a run that was interrupted
        with opened(new, NEW) as target:  # the old payload stays until the new one is whole
            copy("encryptor", key, disk["unit"], length, source, 0, target, args.input)
            if os.path.lexists(path):
                info = payload_info(path)
                os.fchmod(target, info.st_mode & 0o777)
                os.fchown(target, info.st_uid, info.st_gid)
            os.fsync(target)
        os.replace(new, path)
        sync_folder(os.path.dirname(path))
    print(f"{path}: {length} bytes, disk {disk['name']}, {disk['state']}")


def home_file(fd, path, home_key, vm):
    """Plain size and key of a file of the home, from its length and its header page.

    The length tells the size s: 4096 bytes of header, the data in whole units of 4096, and s mod 4096
    bytes more that carry nothing but their number. No key means that nothing was ever written."""
    units, rest = divmod(os.fstat(fd).st_size - PAGE, PAGE)
    size = units * PAGE if rest == 0 else (units - 1) * PAGE + rest
    header = os.pread(fd, PAGE, 0)
    if units == 0 and rest:
        raise Refused(9, f"{path} is damaged: no plain size gives its length")
    if units < 0:
        return 0, None
    if header == ZEROS:  # never written, if nothing but zeros follows
        for start, end in data_ranges(fd, PAGE, os.fstat(fd).st_size):
            if os.pread(fd, end - start, start).strip(b"\0"):
                raise Refused(9, f"{path} is damaged: its header is empty but it has data")
        return size, None
    magic, version, features, nonce, owner, tag = struct.unpack_from("<8sII32s16s32s", header)
    if (magic, version, features) != (b"COFFERHF", 1, 0):
        raise Refused(9, f"{path}: not the header of a home file of version 1")
    mac = hmac.new(hkdf(home_key, b"coffer v1 file mac"), header[:64], hashlib.sha256).digest()
    if owner != vm or not hmac.compare_digest(mac, tag) or header[96:] != ZEROS[96:]:
        raise Refused(9, f"{path}: its header is damaged, or it belongs to another VM")
    return size, hkdf(home_key, b"coffer v1 file" + nonce, 64, "SHA512")


def copy_home_file(path, out, home_key, vm):
    with opened(path, os.O_RDONLY | os.O_NOFOLLOW) as source:
        size, key = home_file(source, path, home_key, vm)
        with opened(out, NEW) as target:
            os.ftruncate(target, size)
            if key:
                copy("decryptor", key, PAGE, size, source, PAGE, target, path)
            os.fsync(target)


SPACES = {b"u": b"user.", b"t": b"trusted.", b"s": b"security."}


def attribute(home_key, path, stored_name):
    """Plain name and value of an extended attribute of a stored file; None for those that are not Coffer's."""
    letter, rest = stored_name[6:7], stored_name[7:]
    if not stored_name.startswith(b"user.:") or letter not in SPACES or not rest:
        return None
    name, value = SPACES[letter] + rest, os.getxattr(path, stored_name, follow_symlinks=False)
    shown = name.decode(errors="backslashreplace")
    if len(value) < 33 or value[0] != 1:
        raise Refused(9, f"{path} is damaged: its attribute {shown} was not set in the mounted home, or was edited")
    siv = AESSIV(hkdf(home_key, b"coffer v1 xattr", 64, "SHA512"))
    try:
        return name, siv.decrypt(value[17:], [name, value[1:17]])
    except InvalidTag:
        raise Refused(9, f"{path} is damaged: its attribute {shown} was edited, or is of another name") from None
    except ValueError:  # of nothing but the tag: an empty value
        raise Refused(13, f"{path}: the empty attribute {shown} needs a later version of `cryptography`") from None


def attributes(path, home_key):
    """Extended attributes and access control lists, and what went wrong. Capabilities stay out, as set-user bits
    do: a value says nothing of the file it was set for."""
    found, failed = [], []
    for stored_name in map(os.fsencode, os.listxattr(path, follow_symlinks=False)):
        try:
            if stored_name.startswith(b"system.posix_acl_"):
                plain = stored_name, os.getxattr(path, stored_name)
            else:
                plain = attribute(home_key, path, stored_name)
            if plain and plain[0] != b"security.capability":
                found.append(plain)
        except (Refused, OSError) as e:
            failed.append(e)
    return found, failed


def set_attributes(out, found):
    """Yields what went wrong."""
    for name, value in found:
        try:
            os.setxattr(out, name, value, follow_symlinks=False)
        except OSError as e:
            yield e


def copy_metadata(out, info):
    if os.geteuid() == 0:
        os.chown(out, info.st_uid, info.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):  # modes are not authenticated: no program may run as its owner by them
        os.chmod(out, info.st_mode & (0o7777 if stat.S_ISDIR(info.st_mode) else 0o777))
    os.utime(out, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def copy_tree(home, outdir, home_key, vm, names):
    """Returns what went wrong; goes on with the rest. Hard links stay hard links. What has a name that does not open
    comes out under its stored name: its content has a proof of its own, and is its owner's."""
    first, folders, failed, out_folders = {}, [], [], {home: outdir}
    for folder, short, subfolders, files in walk(home, failed):
        out_folder = out_folders.pop(folder)
        os.makedirs(out_folder, exist_ok=True)
        found, wrong = attributes(short + "/.", home_key)  # the short path is a link
        folders.append((out_folder, found, os.stat(short)))
        for name in [*subfolders, *files]:
            path, plain = os.path.join(short, name), names.plain(name)
            out = os.path.join(out_folder, name if plain is None else plain)
            try:
                if plain is None:
                    wrong.append(strange(path))
                if name in subfolders and not os.path.islink(path):
                    out_folders[os.path.join(folder, name)] = out
                    continue
                info = os.lstat(path)
                original = first.setdefault((info.st_dev, info.st_ino), out)
                if original != out:
                    os.link(original, out, follow_symlinks=False)
                elif stat.S_ISLNK(info.st_mode):
                    os.symlink(names.target(path), os.fsencode(out))
                elif stat.S_ISREG(info.st_mode):
                    copy_home_file(path, out, home_key, vm)
                elif stat.S_ISFIFO(info.st_mode) or stat.S_ISSOCK(info.st_mode):
                    os.mknod(out, info.st_mode)
                else:
                    raise Refused(9, f"{path} is a device: left out")
                copy_metadata(out, info)
                found, bad = attributes(path, home_key)
                wrong.extend([*bad, *set_attributes(out, found)])
            except (Refused, OSError) as e:
                wrong.append(e)
        failed.extend(str(e).replace(short, folder) for e in wrong)
    for out_folder, found, info in reversed(folders):  # last, since writing into a folder changes its times
        failed.extend(set_attributes(out_folder, found))
        copy_metadata(out_folder, info)
        sync_folder(out_folder)
    os.sync()  # owners, modes and times, and the target folder itself
    return failed


def cmd_home(args, backup):
    safe, home_key = open_safe(args.folder, backup)
    home = os.path.realpath(os.path.join(args.folder, "home"))
    os.makedirs(args.outdir, exist_ok=True)
    if os.listdir(args.outdir):
        raise Refused(2, f"{args.outdir} is not empty")
    if not os.path.isdir(home):
        raise Refused(4, f"{home} is missing")
    failed = copy_tree(home, args.outdir, home_key, uuid.UUID(safe["id"]).bytes, Names(safe, home_key))
    if failed:
        raise Refused(9, "not everything came out: " + "; ".join(str(e) for e in failed))
    print(f"{args.outdir}: the home of {safe['name']}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=EXIT_CODES)
    commands = parser.add_subparsers(dest="command", required=True)
    for run, text, positions in (
        (cmd_keys, "open a backup; list its keys and their check values", []),
        (cmd_info, "verify safe and descriptors; say which key wraps what", ["folder"]),
        (cmd_disk, "write a disk out as a raw image", ["folder", "name", "out"]),
        (cmd_home, "write the plain tree of the VM home out", ["folder", "outdir"]),
        (cmd_encrypt, "replace the content of a disk by a raw image of its size", ["folder", "name", "input"]),
    ):
        sub = commands.add_parser(run.__name__[4:], help=text, description=text, epilog=EXIT_CODES)
        for position in positions:
            sub.add_argument(position)
        sub.add_argument("--backup", required=True, help="backup of the native key provider, or its key file")
        sub.add_argument("--passphrase-file", help="file with its passphrase; asked for when absent")
        sub.set_defaults(run=run)
    return parser.parse_args()


def read_passphrase(args):
    """1 to 1024 bytes; one line end at the end of the file is not part of it."""
    if args.passphrase_file:
        with open(args.passphrase_file, "rb") as file:
            text = file.read(2048)
        text = text[:-1].removesuffix(b"\r") if text.endswith(b"\n") else text
    else:
        text = getpass.getpass(f"Passphrase of {args.backup}: ").encode()
    if not 1 <= len(text) <= 1024:
        raise Refused(2, "a passphrase has 1 to 1024 bytes")
    return text


def main():
    args = arguments()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        if Cipher is None:
            raise Refused(13, f"needs `cryptography` 44 or later: pip install cryptography ({MISSING})")
        args.run(args, Backup(args.backup, read_passphrase(args)))
        return 0
    except Refused as e:
        code, text = e.code, e
    except OSError as e:
        code, text = (4 if isinstance(e, FileNotFoundError) else 10), f"{e.filename or args.command}: {e.strerror}"
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        code, text = 9, f"a file does not hold what it should: {e!r}"
    except (KeyboardInterrupt, EOFError):
        code, text = 130, "interrupted"
    print(f"recover.py: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
