//! The first bytes of image files: which format, and whether a qcow2 names other files.
//!
//! Pure functions on bytes; opens nothing. Numbers of qcow2 are big-endian (QEMU docs/interop/qcow2.txt,
//! section "Header").

use super::Format;

/// qcow2: `QFI\xfb`, then a version.
const QCOW: &[u8] = b"QFI\xfb";

/// Longest name of a backing file that the qcow2 format allows.
const MAX_BACKING_NAME: usize = 1023;

/// Incompatible feature bit 2 of qcow2: guest data lies in another file.
const EXTERNAL_DATA: u64 = 1 << 2;

/// Formats that are known and not imported, by the bytes they start with.
const FOREIGN: [(&[u8], &str); 7] = [
    (b"QFI\xfb\0\0\0\x01", "qcow (version 1)"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"QED\0", "QED"),
    (b"LUKS\xba\xbe", "LUKS"),
    (b"WithoutFreeSpace", "Parallels"),
    (b"WithouFreSpacExt", "Parallels"),
];

/// VDI has its signature behind a text of 64 bytes.
const VDI: (usize, &[u8]) = (64, b"\x7f\x10\xda\xbe");

/// What the head of a file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A format that is imported.
    Known(Format),
    /// A format that is not.
    Foreign(&'static str),
    /// No header that is known: raw data, perhaps.
    Unknown,
}

/// The format by its header.
pub(super) fn sniff(head: &[u8]) -> Kind {
    if let Some((_, name)) = FOREIGN.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Kind::Foreign(name);
    }
    if head.get(VDI.0..).is_some_and(|rest| rest.starts_with(VDI.1)) {
        return Kind::Foreign("VDI");
    }
    if head.starts_with(QCOW) {
        return Kind::Known(Format::Qcow2);
    }
    if super::vmdk::is_vmdk(head) {
        return Kind::Known(Format::Vmdk);
    }
    Kind::Unknown
}

/// Files that a qcow2 image names: its backing file, and "an external data file".
pub(super) fn qcow2_others(head: &[u8]) -> Result<Vec<String>, &'static str> {
    if !head.starts_with(QCOW) {
        return Err("it has no qcow2 header");
    }
    let mut names = Vec::new();
    let version = be32(head, 4).ok_or("the header is cut short")?;
    let backing_at = be64(head, 8).ok_or("the header is cut short")?;
    let backing_len = be32(head, 16).ok_or("the header is cut short")?;
    if backing_at != 0 {
        names.push(backing_name(head, backing_at, backing_len)?);
    }
    if version >= 3 {
        let features = be64(head, 72).ok_or("the header is cut short")?;
        if features & EXTERNAL_DATA != 0 {
            names.push(String::from("an external data file"));
        }
    }
    Ok(names)
}

fn backing_name(head: &[u8], at: u64, len: u32) -> Result<String, &'static str> {
    let at = usize::try_from(at).map_err(|_| "the backing name is out of place")?;
    let len = usize::try_from(len).map_err(|_| "the backing name is too long")?;
    if len > MAX_BACKING_NAME {
        return Err("the backing name is too long");
    }
    let end = at.checked_add(len).ok_or("the backing name is out of place")?;
    let name = head.get(at..end).ok_or("the backing name is out of place")?;
    Ok(format!("backing file {}", String::from_utf8_lossy(name)))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn qcow2(version: u32, backing: Option<&str>, features: u64) -> Vec<u8> {
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(QCOW);
        head[4..8].copy_from_slice(&version.to_be_bytes());
        if let Some(name) = backing {
            head[8..16].copy_from_slice(&256_u64.to_be_bytes());
            head[16..20].copy_from_slice(&u32::try_from(name.len()).expect("short").to_be_bytes());
            head[256..256 + name.len()].copy_from_slice(name.as_bytes());
        }
        head[72..80].copy_from_slice(&features.to_be_bytes());
        head
    }

    #[test]
    fn formats_are_told_by_their_headers() {
        assert_eq!(sniff(&qcow2(3, None, 0)), Kind::Known(Format::Qcow2));
        assert_eq!(sniff(b"KDMV\x01\0\0\0"), Kind::Known(Format::Vmdk));
        assert_eq!(sniff(b"COWD\x01\0\0\0"), Kind::Known(Format::Vmdk));
        assert_eq!(sniff(b"# Disk DescriptorFile\nversion=1\n"), Kind::Known(Format::Vmdk));
        assert_eq!(sniff(&qcow2(1, None, 0)), Kind::Foreign("qcow (version 1)"));
        assert_eq!(sniff(b"vhdxfile...."), Kind::Foreign("VHDX"));
        let mut vdi = vec![b'<'; 80];
        vdi[64..68].copy_from_slice(VDI.1);
        assert_eq!(sniff(&vdi), Kind::Foreign("VDI"));
        assert_eq!(sniff(&[0; 512]), Kind::Unknown);
        assert_eq!(sniff(b""), Kind::Unknown);
    }

    #[test]
    fn names_in_a_qcow2_header_are_found() {
        assert_eq!(qcow2_others(&qcow2(3, None, 0)), Ok(vec![]));
        let backed = qcow2(2, Some("/etc/shadow"), EXTERNAL_DATA);
        assert_eq!(qcow2_others(&backed), Ok(vec!["backing file /etc/shadow".to_owned()]));
        let split = qcow2(3, None, EXTERNAL_DATA);
        assert_eq!(qcow2_others(&split), Ok(vec!["an external data file".to_owned()]));
    }

    #[test]
    fn nonsense_in_a_qcow2_header_is_refused() {
        let mut far = qcow2(3, Some("x"), 0);
        far[8..16].copy_from_slice(&u64::MAX.to_be_bytes());
        assert!(qcow2_others(&far).is_err());
        let mut long = qcow2(3, Some("x"), 0);
        long[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(qcow2_others(&long).is_err());
        assert!(qcow2_others(&QCOW[..4]).is_err());
        assert!(qcow2_others(b"raw data").is_err());
    }

    proptest! {
        #[test]
        fn any_head_is_judged_without_panic(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut head = QCOW.to_vec();
            head.extend(&rest);
            let _ = qcow2_others(&head);
            prop_assert!(matches!(sniff(&head), Kind::Known(Format::Qcow2) | Kind::Foreign(_)));
        }
    }
}
