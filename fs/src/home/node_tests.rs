use super::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;

/// As many levels as fit in the descriptors that every machine allows, since each node holds one.
const DEPTH: u64 = 3000;

/// By recursion each level would take some hundred bytes, so this would end after some hundred levels.
const SMALL_STACK: usize = 64 * 1024;

fn chain(depth: u64) -> Arc<Node> {
    let folder = File::open("/").unwrap();
    let stat = rustix::fs::fstat(&folder).unwrap();
    let mut last: Option<Arc<Node>> = None;
    for id in 0..=depth {
        let place = last.map(|parent| Place { parent, name: "d".into() });
        last = Some(Arc::new(Node {
            id,
            generation: id,
            key: key_of(&stat),
            kind: FileType::Directory,
            fd: folder.try_clone().unwrap().into(),
            place: Mutex::new(Places { last: place, before: None }),
            open: Mutex::default(),
            default_acl: Recent::default(),
        }));
    }
    last.unwrap()
}

#[test]
fn a_deep_chain_is_dropped_without_recursion() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let deepest = chain(DEPTH);
    let root = {
        let mut node = Arc::clone(&deepest);
        while let Ok(place) = node.place() {
            node = place.parent;
        }
        node
    };
    std::thread::Builder::new()
        .stack_size(SMALL_STACK)
        .spawn(move || drop(deepest))
        .unwrap()
        .join()
        .unwrap();
    assert_eq!((root.id, Arc::strong_count(&root)), (0, 1), "a node of the chain is left");
}

#[test]
fn a_node_in_use_keeps_the_nodes_above_it() {
    let deepest = chain(3);
    let middle = deepest.place().unwrap().parent;
    drop(deepest);
    assert_eq!((middle.id, middle.place().unwrap().parent.id), (2, 1));
}
