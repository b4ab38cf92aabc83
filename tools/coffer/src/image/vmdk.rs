//! The files that a VMDK names: extents beside the descriptor, and a parent.
//!
//! Pure functions on the head of a file. The descriptor is text, in a file of its own or embedded in a
//! sparse extent (VMware Virtual Disk Format 5.0, sections "Basic VMDK Structure" and "Hosted Sparse
//! Extents"; numbers are little-endian there).

/// A hosted sparse extent, `VMDK` as a little-endian number.
const SPARSE: &[u8] = b"KDMV";

/// A sparse extent of ESX 3 and before; it carries no descriptor and no names.
const COWD: &[u8] = b"COWD";

/// First line of a descriptor.
const DESCRIPTOR: &str = "# disk descriptorfile";

/// Offsets in the header of a sparse extent: where the descriptor starts and how long it is, in sectors.
const DESCRIPTOR_AT: usize = 28;
const DESCRIPTOR_LEN: usize = 36;

/// Parent CID of a disk without a parent.
const NO_PARENT: &str = "ffffffff";

/// Whether the head is that of a VMDK.
pub(super) fn is_vmdk(head: &[u8]) -> bool {
    let first = &head[..head.len().min(DESCRIPTOR.len())];
    head.starts_with(SPARSE)
        || head.starts_with(COWD)
        || first.eq_ignore_ascii_case(DESCRIPTOR.as_bytes())
}

/// Names of the extent files and of the parent, without the extent that the image itself is.
pub(super) fn files(head: &[u8]) -> Result<Vec<String>, &'static str> {
    if head.starts_with(COWD) {
        return Ok(Vec::new());
    }
    let embedded = head.starts_with(SPARSE);
    let text = if embedded { embedded_descriptor(head)? } else { head };
    let mut names = Vec::new();
    for line in String::from_utf8_lossy(text).trim_end_matches('\0').lines() {
        names.extend(parent(line));
        // QEMU takes the extents of an embedded descriptor from the file itself, unless the header says
        // that it holds no data.
        if !embedded || holds_no_data(head) {
            names.extend(extent(line));
        }
    }
    Ok(names)
}

fn embedded_descriptor(head: &[u8]) -> Result<&[u8], &'static str> {
    let at = sectors(head, DESCRIPTOR_AT).ok_or("the header is cut short")?;
    let len = sectors(head, DESCRIPTOR_LEN).ok_or("the header is cut short")?;
    if at == 0 {
        return Ok(&[]);
    }
    let end = at.checked_add(len).ok_or("the descriptor is out of place")?;
    head.get(at..end).ok_or("the descriptor is out of place")
}

/// Capacity 0 in the header of a sparse extent.
fn holds_no_data(head: &[u8]) -> bool {
    sectors(head, 12) == Some(0)
}

fn sectors(head: &[u8], at: usize) -> Option<usize> {
    let number = u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?);
    usize::try_from(number.checked_mul(super::SECTOR)?).ok()
}

/// `parentFileNameHint="NAME"`, and a parent CID, which makes QEMU look for a parent.
fn parent(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let value = value.trim().trim_matches('"');
    match key.trim().to_ascii_lowercase().as_str() {
        "parentfilenamehint" => Some(format!("parent {value}")),
        "parentcid" if !value.eq_ignore_ascii_case(NO_PARENT) => {
            Some(String::from("a parent disk"))
        }
        _ => None,
    }
}

/// `ACCESS SECTORS TYPE "NAME" ...`; a zero extent has no name.
fn extent(line: &str) -> Option<String> {
    let line = line.trim_start();
    let access = line.split_whitespace().next()?;
    if !["RW", "RDONLY", "NOACCESS"].contains(&access) {
        return None;
    }
    line.split('"').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sparse(capacity: u64, descriptor: &str) -> Vec<u8> {
        let mut head = vec![0; 512 * 3];
        head[..4].copy_from_slice(SPARSE);
        head[12..20].copy_from_slice(&capacity.to_le_bytes());
        head[28..36].copy_from_slice(&1_u64.to_le_bytes());
        head[36..44].copy_from_slice(&2_u64.to_le_bytes());
        head[512..512 + descriptor.len()].copy_from_slice(descriptor.as_bytes());
        head
    }

    const FLAT: &str = "# Disk DescriptorFile\nparentCID=ffffffff\n\
        RW 20480 FLAT \"web-flat.vmdk\" 0\nRW 8 ZERO\nRDONLY 8 FLAT \"/etc/shadow\" 0\n";

    #[test]
    fn a_descriptor_names_its_extents() {
        assert!(is_vmdk(FLAT.as_bytes()));
        let names = files(FLAT.as_bytes()).expect("a good descriptor");
        assert_eq!(names, ["web-flat.vmdk", "/etc/shadow"]);
    }

    #[test]
    fn a_parent_is_named() {
        let text = "# Disk DescriptorFile\nparentCID=12345678\nparentFileNameHint=\"base.vmdk\"\n";
        assert_eq!(
            files(text.as_bytes()),
            Ok(vec!["a parent disk".into(), "parent base.vmdk".into()])
        );
        let head = sparse(100, "parentFileNameHint = \"/x\"\n");
        assert_eq!(files(&head), Ok(vec!["parent /x".into()]));
    }

    #[test]
    fn a_sparse_extent_reads_only_itself_unless_it_is_empty() {
        let text = "RW 20480 SPARSE \"self.vmdk\"\n";
        assert_eq!(files(&sparse(20480, text)), Ok(vec![]));
        assert_eq!(files(&sparse(0, text)), Ok(vec!["self.vmdk".into()]));
    }

    #[test]
    fn a_descriptor_out_of_place_is_refused() {
        let mut head = sparse(1, "");
        head[28..36].copy_from_slice(&(u64::MAX / 600).to_le_bytes());
        assert!(files(&head).is_err());
        assert!(files(SPARSE).is_err());
    }

    proptest! {
        #[test]
        fn any_head_is_judged_without_panic(
            magic in prop::sample::select(vec![&b"KDMV"[..], b"COWD", b"# Disk DescriptorFile\n"]),
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut head = magic.to_vec();
            head.extend(&rest);
            prop_assert!(is_vmdk(&head));
            let _ = files(&head);
        }
    }
}
