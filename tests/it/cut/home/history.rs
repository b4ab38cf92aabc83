//! What a home held after each step, and since when that is promised.
//!
//! Owns the record; must not know how a step was done, nor what a crash may show.

use super::judge::Found;
use crate::cut::ground::Cut;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of an object, for as long as there is one of its names, and after.
pub(super) type Node = usize;

/// Values of extended attributes by name.
pub(super) type Attributes = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// With its target.
    Link(String),
}

/// All names, as paths below the home, and what they name.
pub(super) type Names = BTreeMap<String, Node>;

#[derive(Debug)]
struct Object {
    kind: Kind,
    /// Content after each step that changed it, oldest first; empty at first.
    contents: Vec<(usize, Arc<Vec<u8>>)>,
    attributes: Vec<(usize, Arc<Attributes>)>,
    /// Steps that made the content durable.
    data_synced: Vec<usize>,
    /// Steps that made all of it durable.
    all_synced: Vec<usize>,
}

/// The record of a run.
#[derive(Debug)]
pub(super) struct History {
    objects: Vec<Object>,
    /// Names after each step; the first before any.
    names: Vec<Arc<Names>>,
    /// The last step that changed the names in a folder; `None` is the home itself.
    changed: BTreeMap<Option<Node>, usize>,
    /// Steps that made the names of a folder durable, and the last step before that changed them.
    folders_synced: Vec<(usize, usize)>,
    /// What each step was, in words.
    pub(super) told: Vec<String>,
}

impl History {
    pub(super) fn new() -> Self {
        let (names, told) = (vec![Arc::default()], vec!["(nothing)".to_owned()]);
        let (changed, folders_synced) = (BTreeMap::new(), Vec::new());
        Self { objects: Vec::new(), names, changed, folders_synced, told }
    }

    /// A history that begins with what is there, durably.
    pub(super) fn adopt(found: &BTreeMap<String, Found>) -> Self {
        let (mut history, mut nodes) = (Self::new(), BTreeMap::new());
        let mut names = Names::new();
        for (name, object) in found {
            let node = *nodes.entry(object.inode).or_insert_with(|| {
                let kind = object.kind.clone();
                history.insert(0, kind, object.content.clone(), object.attributes.clone())
            });
            names.insert(name.clone(), node);
        }
        history.names = vec![Arc::new(names)];
        history
    }

    fn insert(
        &mut self,
        step: usize,
        kind: Kind,
        content: Vec<u8>,
        attributes: Attributes,
    ) -> Node {
        self.objects.push(Object {
            kind,
            contents: vec![(step, Arc::new(content))],
            attributes: vec![(step, Arc::new(attributes))],
            data_synced: Vec::new(),
            all_synced: Vec::new(),
        });
        self.objects.len() - 1
    }

    /// The number of the step that comes next.
    pub(super) fn next(&self) -> usize {
        self.names.len()
    }

    pub(super) fn names(&self) -> &Names {
        self.names_after(self.names.len() - 1)
    }

    pub(super) fn names_after(&self, step: usize) -> &Names {
        &self.names[step]
    }

    pub(super) fn kind(&self, node: Node) -> &Kind {
        &self.objects[node].kind
    }

    pub(super) fn content(&self, node: Node) -> Arc<Vec<u8>> {
        Arc::clone(&self.objects[node].contents.last().unwrap().1)
    }

    pub(super) fn attributes(&self, node: Node) -> Arc<Attributes> {
        Arc::clone(&self.objects[node].attributes.last().unwrap().1)
    }

    /// A new object, made by the next step.
    pub(super) fn add(&mut self, kind: Kind) -> Node {
        self.insert(self.next(), kind, Vec::new(), Attributes::new())
    }

    pub(super) fn set_content(&mut self, node: Node, content: Vec<u8>) {
        let step = self.next();
        self.objects[node].contents.push((step, Arc::new(content)));
    }

    pub(super) fn set_attributes(&mut self, node: Node, attributes: Attributes) {
        let step = self.next();
        self.objects[node].attributes.push((step, Arc::new(attributes)));
    }

    pub(super) fn sync_data(&mut self, node: Node) {
        let step = self.next();
        self.objects[node].data_synced.push(step);
    }

    pub(super) fn sync_all(&mut self, node: Node) {
        let step = self.next();
        self.objects[node].data_synced.push(step);
        self.objects[node].all_synced.push(step);
    }

    /// The next step makes the names in a folder durable.
    pub(super) fn sync_names(&mut self, folder: Option<Node>) {
        let changed = self.changed.get(&folder).copied().unwrap_or(0);
        self.folders_synced.push((self.next(), changed));
    }

    /// Ends the step, which left these names.
    pub(super) fn end(&mut self, told: String, names: Option<Names>) {
        self.told.push(told);
        let before = Arc::clone(self.names.last().unwrap());
        let Some(names) = names else { return self.names.push(before) };
        let (old, new) = (listings(&before), listings(&names));
        let gone = old.iter().filter(|(place, node)| new.get(place) != Some(node));
        let come = new.iter().filter(|(place, node)| old.get(place) != Some(node));
        for ((folder, _), _) in gone.chain(come) {
            self.changed.insert(*folder, self.names.len());
        }
        self.names.push(Arc::new(names));
    }

    /// The last change of names, which is durable when steps up to `done` were answered. Storage keeps the order of
    /// such changes, so all before it are durable, too.
    pub(super) fn names_durable(&self, done: usize) -> usize {
        let synced = self.folders_synced.iter().filter(|(step, _)| *step <= done);
        synced.map(|(_, changed)| *changed).max().unwrap_or(0)
    }

    /// Contents that a file may have, or be on the way between, after a loss of power; the oldest first.
    pub(super) fn contents(&self, node: Node, cut: Cut) -> Vec<Arc<Vec<u8>>> {
        let object = &self.objects[node];
        window(&object.contents, last(&object.data_synced, cut.done), cut.begun)
    }

    /// Attributes that an object may have.
    pub(super) fn attributes_after(&self, node: Node, cut: Cut) -> Vec<Arc<Attributes>> {
        let object = &self.objects[node];
        window(&object.attributes, last(&object.all_synced, cut.done), cut.begun)
    }
}

/// The names in each folder.
fn listings(names: &Names) -> BTreeMap<(Option<Node>, &str), Node> {
    let all = names.iter().map(|(path, node)| {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        ((names.get(folder).copied(), name), *node)
    });
    all.collect()
}

fn last(steps: &[usize], done: usize) -> usize {
    steps.iter().copied().filter(|step| *step <= done).max().unwrap_or(0)
}

/// The value as of step `from`, and all that followed up to step `to`.
fn window<T>(values: &[(usize, Arc<T>)], from: usize, to: usize) -> Vec<Arc<T>> {
    let first = values.iter().rposition(|(step, _)| *step <= from).unwrap_or(0);
    let until = values[first..].iter().take_while(|(step, _)| *step <= to);
    until.map(|(_, value)| Arc::clone(value)).collect()
}
