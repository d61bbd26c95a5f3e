//! The tests from outside: the real binary, and single parts, against the simulated cloud.

mod activity;
mod clock;
mod collect;
mod config;
mod crash;
mod isolation;
mod lifecycle;
mod msal;
mod phases;
mod power;
mod read;
mod skip;
mod soundness;
mod token;
mod world;
