//! The file that tells others which listeners are open: `{"amqp": "127.0.0.1:5672", …}`. Written
//! anew, in one step, whenever that changes.

use crate::handle::{Listeners, NodeHandle};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(super) async fn keep(path: PathBuf, node: NodeHandle) {
    let mut listeners = node.listeners.clone();
    loop {
        let now = listeners.borrow_and_update().clone();
        if let Err(error) = write(&path, &now) {
            tracing::error!(path = %path.display(), "ready file: {error}");
        }
        if listeners.changed().await.is_err() {
            return;
        }
    }
}

fn write(path: &Path, listeners: &Listeners) -> std::io::Result<()> {
    let map: BTreeMap<_, _> = listeners.iter().map(|(name, address)| (*name, address)).collect();
    let text = serde_json::to_string(&map)?;
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_in_one_step_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        let amqp = ("amqp", "127.0.0.1:5672".to_owned());
        let http = ("http", "127.0.0.1:15672".to_owned());
        for (listeners, expected) in [
            (vec![http.clone()], r#"{"http":"127.0.0.1:15672"}"#),
            (vec![http, amqp], r#"{"amqp":"127.0.0.1:5672","http":"127.0.0.1:15672"}"#),
            (vec![], "{}"),
        ] {
            write(&path, &listeners).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
