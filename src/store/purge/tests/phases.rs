//! Where something has been made durable: tests look there at what a crash would leave.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

type Look = Arc<dyn Fn(&'static str) + Send + Sync>;

static WATCHED: Mutex<Vec<(PathBuf, Look)>> = Mutex::new(Vec::new());

/// From now on `look` is called whenever something has been made durable in this store.
pub(in crate::store) fn watch(store: &Path, look: impl Fn(&'static str) + Send + Sync + 'static) {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner).push((store.to_owned(), Arc::new(look)));
}

/// No longer.
pub(in crate::store) fn end(store: &Path) {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _)| of != store);
}

/// The store has come as far as this.
pub(in crate::store::purge) fn met(path: &Path, name: &'static str) {
    let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let look = watched.iter().find(|(store, _)| path.starts_with(store)).map(|(_, look)| Arc::clone(look));
    drop(watched);
    if let Some(look) = look {
        look(name);
    }
}
