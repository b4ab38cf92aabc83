"""Checks by libnbd, the reference client: libnbd.py CHECK URI. Silent, or fails."""

import errno
import sys

import nbd

MIB = 1024 * 1024


def connected(uri):
    """A handle that lets illegal requests through and asks for base:allocation."""
    h = nbd.NBD()
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.connect_uri(uri)
    h.set_strict_mode(0)
    return h


def refused(code, call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except nbd.Error as e:
        assert e.errnum == code, (e.errnum, code, call, arguments)
    else:
        raise AssertionError((call, arguments))


def options(uri):
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_uri(uri)
    names = []
    assert h.opt_list(lambda name, description: names.append(name)) == 1
    assert names == ["root"]
    contexts = []
    h.opt_list_meta_context(lambda name: contexts.append(name))
    assert contexts == ["base:allocation"], contexts
    h.set_export_name("nobody")
    refused(errno.ENOENT, h.opt_info)
    refused(errno.ENOENT, h.opt_go)
    h.set_export_name("root")
    h.add_meta_context("base:allocation")
    h.add_meta_context("qemu:dirty-bitmap:none")
    h.set_full_info(True)
    h.opt_info()
    size = h.get_size()
    h.opt_go()
    assert h.get_size() == size
    assert h.get_structured_replies_negotiated()
    assert h.can_meta_context("base:allocation")
    assert not h.can_meta_context("qemu:dirty-bitmap:none")
    assert h.get_canonical_export_name() == "root"
    assert h.get_block_size(nbd.SIZE_MINIMUM) == 1
    h.shutdown()

    simple = nbd.NBD()
    simple.set_request_structured_replies(False)
    simple.connect_uri(uri)
    assert not simple.get_structured_replies_negotiated() and not simple.can_df()
    assert simple.pread(512, 0) == bytearray(512)
    simple.shutdown()


def requests(uri):
    h = connected(uri)
    size = h.get_size()
    refused(errno.EINVAL, h.pread, 512, size)
    refused(errno.EINVAL, h.pread, 512, size - 1)
    refused(errno.ENOSPC, h.pwrite, b"x" * 512, size)
    refused(errno.ENOSPC, h.zero, 512, size)
    refused(errno.EINVAL, h.trim, 512, size)
    refused(errno.EINVAL, h.cache, 512, size)
    refused(errno.EINVAL, h.block_status, 512, size, lambda *a: 0)
    refused(errno.EINVAL, h.block_status, 0, 0, lambda *a: 0)
    refused(errno.EINVAL, h.pread, 512, 0, flags=1 << 14)
    refused(errno.EINVAL, h.pwrite, b"x", 0, flags=nbd.CMD_FLAG_DF)
    refused(errno.EINVAL, h.zero, 512, 0, flags=nbd.CMD_FLAG_REQ_ONE)
    refused(errno.ENOTSUP, h.zero, 100, 0, flags=nbd.CMD_FLAG_FAST_ZERO)
    for call in (h.trim, h.zero, h.cache):
        call(0, 0)
    h.pwrite(b"", size)
    assert h.pread(0, 0) == bytearray(0)
    h.pwrite(b"odd", 4095, flags=nbd.CMD_FLAG_FUA)
    assert h.pread(5, 4094) == bytearray(b"\0odd\0")
    h.zero(MIB, 0, flags=nbd.CMD_FLAG_FAST_ZERO)
    h.zero(MIB, 0, flags=nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
    assert h.pread(5, 4094) == bytearray(5)
    h.cache(size, 0)
    h.trim(size, 0, flags=nbd.CMD_FLAG_FUA)
    h.flush()
    h.shutdown()


def chunks(uri):
    h = connected(uri)
    h.pwrite(b"\xaa" * 65536, 65536)

    def pieces(flags):
        found = []
        h.pread_structured(262144, 0, lambda b, o, s, e: found.append((o, len(b), s)), flags=flags)
        return found

    hole, data = nbd.READ_HOLE, nbd.READ_DATA
    assert pieces(0) == [(0, 65536, hole), (65536, 65536, data), (131072, 131072, hole)]
    assert pieces(nbd.CMD_FLAG_DF) == [(0, 262144, data)]
    extents = []
    h.block_status(MIB, 0, lambda context, at, entries, e: extents.extend(entries))
    assert extents == [65536, 3, 65536, 0, MIB - 131072, 3], extents
    one = []
    h.block_status(MIB, 4096, lambda c, at, entries, e: one.extend(entries), flags=nbd.CMD_FLAG_REQ_ONE)
    assert one == [65536 - 4096, 3], one
    h.shutdown()


def name(uri):
    h = nbd.NBD()
    h.connect_uri(uri)
    assert h.get_export_name() == "/a disk"
    assert h.pread(1, 0) == bytearray(1)
    h.shutdown()


if __name__ == "__main__":
    {f.__name__: f for f in (options, requests, chunks, name)}[sys.argv[1]](sys.argv[2])
