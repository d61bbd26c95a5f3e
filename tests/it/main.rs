//! The tests from outside: the real binary, and single parts, against the simulated cloud.

mod activity;
mod clock;
mod collect;
mod config;
mod crash;
mod disk;
mod isolation;
mod lifecycle;
mod machine;
mod msal;
mod notify;
mod oddities;
mod openapi;
mod operator;
mod package;
mod phases;
mod power;
mod read;
mod reload;
mod skip;
mod soak;
mod soundness;
mod systemd;
mod token;
mod verify;
mod world;
