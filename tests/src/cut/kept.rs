//! Keeping a state that a test failed on.

use super::image::Image;
use super::log::Event;
use std::fs::{self, File};
use std::path::Path;

/// A state that is being judged. Dropped in a panic, it is written to the folder that `COFFER_CUT_KEEP` names, if that
/// is set, as the files `state` and `log`.
#[derive(Debug)]
pub struct Kept<'a> {
    image: &'a Image,
    log: &'a [Event],
}

impl<'a> Kept<'a> {
    /// A state, and the events that led to it.
    #[must_use]
    pub fn new(image: &'a Image, log: &'a [Event]) -> Self {
        Self { image, log }
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let Some(folder) = std::env::var_os("COFFER_CUT_KEEP") else { return };
        if std::thread::panicking() {
            let folder = Path::new(&folder);
            let log: Vec<String> = self.log.iter().map(Event::to_string).collect();
            let saved = File::create(folder.join("state")).and_then(|file| self.image.save(&file));
            let saved = saved.and_then(|()| fs::write(folder.join("log"), log.join("\n")));
            eprintln!("the state is in {}: {saved:?}", folder.display());
        }
    }
}
