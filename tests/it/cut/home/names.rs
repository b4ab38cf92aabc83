//! The random steps that change names, or make them durable.

use super::history::{Kind, Names, Node};
use super::steps::Steps;
use rustix::fs::{CWD, RenameFlags};
use std::fs::{self, File};
use std::os::unix::fs::symlink;

impl Steps<'_> {
    pub(super) fn create(&mut self) {
        let Some(name) = self.a_new_name() else { return self.unlink() };
        let node = self.history.add(Kind::File);
        let mut names = self.history.names().clone();
        names.insert(name.clone(), node);
        let path = self.at(&name);
        self.step(format!("create {name}"), Some(names), || drop(File::create_new(path).unwrap()));
    }

    /// Moves what is below a name along with it.
    fn moved(names: &mut Names, from: &str, to: &str) {
        let below = format!("{from}/");
        let moving = |name: &str| name == from || name.starts_with(&below);
        let old: Vec<String> = names.keys().filter(|name| moving(name)).cloned().collect();
        let taken: Vec<(String, Node)> =
            old.iter().filter_map(|name| names.remove_entry(name)).collect();
        for (name, node) in taken {
            names.insert(format!("{to}{}", &name[from.len()..]), node);
        }
    }

    pub(super) fn rename(&mut self) {
        let all = self.of_kind(|_| true);
        let Some((from, node)) = self.dice.pick(&all).cloned() else { return };
        let is_file = *self.history.kind(node) == Kind::File;
        let to = match is_file && self.dice.chance(1, 2) {
            // In the place of another file.
            true => self.a_file().map(|(name, _)| name),
            false => self.a_new_name(),
        };
        let Some(to) = to.filter(|to| !to.starts_with(&format!("{from}/"))) else { return };
        let mut names = self.history.names().clone();
        // Two names of one file stay as they are (rename(2)).
        if names.get(&to) != Some(&node) {
            names.remove(&to);
            Self::moved(&mut names, &from, &to);
        }
        let (old, new) = (self.at(&from), self.at(&to));
        self.step(format!("rename {from} to {to}"), Some(names), || fs::rename(old, new).unwrap());
    }

    pub(super) fn exchange(&mut self) {
        let (Some((one, a)), Some((other, b))) = (self.a_file(), self.a_file()) else { return };
        if one == other {
            return;
        }
        let mut names = self.history.names().clone();
        names.insert(one.clone(), b);
        names.insert(other.clone(), a);
        let (old, new) = (self.at(&one), self.at(&other));
        self.step(format!("exchange {one} and {other}"), Some(names), || {
            rustix::fs::renameat_with(CWD, old, CWD, new, RenameFlags::EXCHANGE).unwrap();
        });
    }

    pub(super) fn link(&mut self) {
        let (Some((from, node)), Some(to)) = (self.a_file(), self.a_new_name()) else { return };
        let mut names = self.history.names().clone();
        names.insert(to.clone(), node);
        let (old, new) = (self.at(&from), self.at(&to));
        self.step(format!("link {from} as {to}"), Some(names), || {
            fs::hard_link(old, new).unwrap();
        });
    }

    pub(super) fn unlink(&mut self) {
        let all = self.of_kind(|kind| *kind != Kind::Folder);
        let Some((name, _)) = self.dice.pick(&all).cloned() else { return };
        let mut names = self.history.names().clone();
        names.remove(&name);
        let path = self.at(&name);
        self.step(format!("unlink {name}"), Some(names), || fs::remove_file(path).unwrap());
    }

    pub(super) fn make_folder(&mut self) {
        let Some(name) = self.a_new_name() else { return };
        let node = self.history.add(Kind::Folder);
        let mut names = self.history.names().clone();
        names.insert(name.clone(), node);
        let path = self.at(&name);
        self.step(format!("mkdir {name}"), Some(names), || fs::create_dir(path).unwrap());
    }

    pub(super) fn remove_folder(&mut self) {
        let mut empty = self.of_kind(|kind| *kind == Kind::Folder);
        let names = self.history.names();
        empty.retain(|(name, _)| {
            let below = format!("{name}/");
            !names.keys().any(|other| other.starts_with(&below))
        });
        let Some((name, _)) = self.dice.pick(&empty).cloned() else { return };
        let mut names = self.history.names().clone();
        names.remove(&name);
        let path = self.at(&name);
        self.step(format!("rmdir {name}"), Some(names), || fs::remove_dir(path).unwrap());
    }

    pub(super) fn make_link(&mut self) {
        let Some(name) = self.a_new_name() else { return };
        let target = format!("to/{}", self.history.next());
        let node = self.history.add(Kind::Link(target.clone()));
        let mut names = self.history.names().clone();
        names.insert(name.clone(), node);
        let path = self.at(&name);
        self.step(format!("symlink {name}"), Some(names), || symlink(target, path).unwrap());
    }

    pub(super) fn sync_folder(&mut self) {
        let folder = self.a_folder();
        let open = File::open(self.at(&folder)).unwrap();
        let node = self.history.names().get(folder.trim_end_matches('/')).copied();
        self.history.sync_names(node);
        self.step(format!("sync folder /{folder}"), None, || open.sync_all().unwrap());
    }
}
