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
