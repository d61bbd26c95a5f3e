//! Tests against the simulated cloud: the real binary as a black box, and the parts that speak to Microsoft.

mod activity;
mod clock;
mod collect;
mod config;
mod lifecycle;
mod skip;
mod token;
mod world;
