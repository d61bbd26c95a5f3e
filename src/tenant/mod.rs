//! (under construction)
pub mod gate;
pub mod limit;
pub mod plan;
pub mod slots;
