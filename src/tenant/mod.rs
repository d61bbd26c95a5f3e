//! One supervised task tree per tenant. See each file; the tree follows.

pub mod plan;
pub mod limit;
pub mod gate;
pub mod slots;
