//! Black-box tests: the real binary against the simulated cloud.

mod clock;
mod collect;
mod lifecycle;
mod skip;
mod world;
