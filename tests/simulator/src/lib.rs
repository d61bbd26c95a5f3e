//! A simulated Microsoft cloud.
