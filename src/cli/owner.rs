//! Reading a store as its owner.
//!
//! A command that root runs becomes the store's owner for as long as it has the store open, so that it leaves no file
//! behind that the service cannot open. After that it is root again: where the output goes is root's right.
//!
//! **Invariant:** this is for the ownership of files and protects from nobody: the process may become root again.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, getegid, getgroups, setegid, seteuid, setgroups};

/// The whole process is the store's owner until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct AsOwner(Option<Before>);

/// Who it was before.
#[derive(Debug)]
struct Before {
    group: Gid,
    groups: Vec<Gid>,
}

impl AsOwner {
    /// Stays who it is.
    pub(super) const fn nobody_else() -> Self {
        Self(None)
    }

    /// Becomes the owner of the store at `path`, which has this metadata, if root runs this and the store is another's.
    pub(super) fn become_it(path: &Path, store: &Metadata) -> anyhow::Result<Self> {
        let (uid, gid) = (Uid::from_raw(store.uid()), Gid::from_raw(store.gid()));
        if !Uid::effective().is_root() || uid.is_root() {
            return Ok(Self(None));
        }
        let become_it = || {
            let before = Self(Some(Before { group: getegid(), groups: getgroups()? }));
            setgroups(&[gid])?;
            setegid(gid)?;
            seteuid(uid)?;
            Ok::<_, nix::Error>(before)
        };
        become_it().with_context(|| format!("cannot become user {uid}, who owns the store at `{}`", path.display()))
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        let Some(Before { group, groups }) = self.0.take() else { return };
        // Whoever was root may be it again; if not, what needs root says so.
        let _ = seteuid(Uid::from_raw(0)).and_then(|()| setegid(group)).and_then(|()| setgroups(&groups));
    }
}
