//! A rules file in a folder of its own.

use std::fs;

use super::Folder;

/// Is replaced as a whole, as by an editor.
pub(crate) struct RulesFile {
    folder: Folder,
}

impl RulesFile {
    pub(crate) fn new(text: &str) -> Self {
        let file = Self {
            folder: Folder::new(),
        };
        file.replace(text);
        file
    }

    pub(crate) fn path(&self) -> String {
        format!("{}/rules.yaml", self.folder.path())
    }

    pub(crate) fn replace(&self, text: &str) {
        let next = format!("{}/next", self.folder.path());
        fs::write(&next, text).unwrap();
        fs::rename(next, self.path()).unwrap();
    }
}
